import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { serveControl } from '../../emulator/control.js';
import { type Emulator, startEmulator } from '../../emulator/emulator.js';
import type { RecordEntry } from '../../emulator/record.js';
import { parseSeed } from '../../emulator/seed.js';
import { writeAtomically } from '../../emulator/state.js';
import { makeTrouble } from '../../emulator/trouble.js';
import { systemClock } from '../../clock.js';
import { AgentError, errorText } from '../../errors.js';
import type { Io } from '../io.js';
import { environmentLines } from './environment.js';
import { eventJson, eventText } from './event-lines.js';

export interface ServeFlags {
  port?: number;
  httpsPort?: number;
  amqpPort?: number;
  httpPort?: number;
  ports?: 'auto';
  host: string;
  hostName?: string[];
  device?: string[];
  deviceCa?: string[];
  seed?: string;
  state?: string;
  randomKeys?: boolean;
  trouble?: number;
  troubleEvery: number;
  writeEnv?: string;
  output: 'auto' | 'text' | 'json' | 'none';
  quiet?: boolean;
}

/** Runs an emulator until a signal comes. */
export async function serve(io: Io, flags: ServeFlags): Promise<void> {
  const { stop, now } = io;
  await using emulator = await startEmulator({
    ...portsOf(flags),
    host: flags.host,
    devices: flags.device ?? [],
    deviceAuthorities: await readAuthorities(flags.deviceCa),
    moreHostNames: flags.hostName ?? [],
    randomKeys: flags.randomKeys === true,
    // Events are printed as they happen; the record only serves the control's questions.
    record: { entries: 10_000, bytes: 16 * 1024 * 1024 },
    ...(flags.state !== undefined && { stateDirectory: flags.state }),
    ...(flags.seed !== undefined && { seed: await readSeed(flags.seed) }),
  });
  await using authority = await authorityFile(emulator, flags);
  const environment = (url: string): string => environmentLines(emulator, authority.path, url);
  await using control = await serveControl(
    emulator,
    flags.httpPort ?? (flags.ports === 'auto' ? 0 : [8080, 0]),
    environment,
  );
  const url = `http://127.0.0.1:${control.port}`;
  const events = printEvents(io, emulator, flags);
  await io.stderr.write(greeting(emulator, url, flags));
  // Last, because whoever waits for this file takes it for the sign that the hub is ready.
  if (flags.writeEnv !== undefined)
    await written(flags.writeEnv, writeAtomically(flags.writeEnv, environment(url)));
  const ended = AbortSignal.any([stop, now]);
  const { trouble: seed, troubleEvery: everyMs } = flags;
  if (seed !== undefined)
    await makeTrouble(emulator.faults, { seed, everyMs, clock: systemClock, signal: ended });
  else if (!ended.aborted) await once(ended, 'abort');
  events.stop();
}

/** Many SDKs know no other ports than the standard ones; whoever may not have 443 can still use the rest. */
function portsOf({ ports, port, httpsPort, amqpPort }: ServeFlags) {
  const auto = ports === 'auto';
  return {
    port: port ?? (auto ? 0 : 5671),
    httpsPort: httpsPort ?? (auto ? 0 : [443, 8443, 0]),
    plainPort: amqpPort ?? (auto ? 0 : [5672, 0]),
  };
}

async function readAuthorities(files: readonly string[] = []): Promise<string[]> {
  if (files.length === 0) return [];
  const { certificatesOf } = await import('../pem-files.js');
  return (await Promise.all(files.map(certificatesOf))).flat().map(String);
}

async function readSeed(file: string) {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw new AgentError('no-input', `cannot read the seed ${file}: ${errorText(error)}`, { cause: error });
  }
  return parseSeed(text, file);
}

/** Prints what is recorded; what nobody reads piles up to a limit and is then left out. */
function printEvents(io: Io, emulator: Emulator, flags: ServeFlags): { stop: () => void } {
  const { output, quiet } = flags;
  if (quiet === true || output === 'none') return { stop: () => undefined };
  const format = output === 'json' || (output === 'auto' && !io.stdout.isTTY) ? eventJson : eventText;
  let pending = 0;
  let dropped = 0;
  const print = (entry: RecordEntry): void => {
    if (pending >= mostPending) {
      dropped++;
      return;
    }
    if (dropped > 0) void io.stderr.write(`warning: ${dropped} events were not printed: nobody read them\n`);
    dropped = 0;
    pending++;
    void io.stdout.write(`${format(entry)}\n`).finally(() => pending--);
  };
  return { stop: emulator.record.listen(print) };
}

const mostPending = 10_000;

/** Clients need the authority as a file: in the state directory, or in one that goes with the process. */
async function authorityFile(
  emulator: Emulator,
  { state }: ServeFlags,
): Promise<AsyncDisposable & { path: string }> {
  const keep = { [Symbol.asyncDispose]: () => Promise.resolve() };
  if (state !== undefined) return { path: join(state, 'ca.pem'), ...keep };
  const directory = await mkdtemp(join(tmpdir(), 'iothub-emulator-'));
  const path = join(directory, 'ca.pem');
  await written(path, writeAtomically(path, emulator.ca));
  return { path, [Symbol.asyncDispose]: () => rm(directory, { recursive: true, force: true }) };
}

async function written(file: string, writing: Promise<void>): Promise<void> {
  try {
    await writing;
  } catch (error) {
    throw new AgentError('cannot-create', `cannot write ${file}: ${errorText(error)}`, { cause: error });
  }
}

function greeting(emulator: Emulator, url: string, { writeEnv }: ServeFlags): string {
  const { hostName, httpsPort = 443, plainPort = 5672 } = emulator;
  const name = hostName.replace(/:\d+$/, '');
  const lines = [
    `ready: AMQP ${name}:${emulator.port}, REST and WebSocket ${name}:${httpsPort}, plain AMQP ${name}:${plainPort}`,
    `  control ${url}`,
    ...emulator.devices.map(({ deviceId }) => `  device ${deviceId}`),
  ];
  if (httpsPort !== 443)
    lines.push('  not on 443: SDKs that know no other port cannot use REST and WebSocket');
  lines.push(
    writeEnv === undefined
      ? '  eval "$(iothub-emulator env)"'
      : `  . ${writeEnv.includes('/') ? writeEnv : `./${writeEnv}`}`,
  );
  return `${lines.join('\n')}\n`;
}
