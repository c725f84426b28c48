import { join } from 'node:path';
import { once } from 'node:events';

import { type Emulator, startEmulator } from '../../emulator/emulator.js';
import type { RecordEntry } from '../../emulator/record.js';
import { writeAtomically } from '../../emulator/state.js';
import { AgentError, errorText } from '../../errors.js';
import type { Io } from '../io.js';
import { environmentLines } from './environment.js';
import { eventJson, eventText } from './event-lines.js';

export interface ServeFlags {
  port: number;
  ports?: 'auto';
  host: string;
  device?: string[];
  state?: string;
  writeEnv?: string;
  output: 'auto' | 'text' | 'json' | 'none';
  quiet?: boolean;
}

/** Runs an emulator until a signal comes, or whoever reads its events leaves. */
export async function serve(io: Io, flags: ServeFlags): Promise<void> {
  const { stop, now } = io;
  await using emulator = await startEmulator({
    port: flags.ports === 'auto' ? 0 : flags.port,
    host: flags.host,
    devices: flags.device ?? [],
    ...(flags.state !== undefined && { stateDirectory: flags.state }),
  });
  const events = printEvents(io, emulator, flags);
  const caFile = await authorityFile(emulator, flags);
  await io.stderr.write(greeting(emulator, flags));
  // Last, because whoever waits for this file takes it for the sign that the hub is ready.
  if (flags.writeEnv !== undefined) await writeEnvironment(flags.writeEnv, emulator, caFile);
  const ended = AbortSignal.any([stop, now]);
  if (!ended.aborted) await once(ended, 'abort');
  events.stop();
}

/** Prints what is recorded; events pile up to a limit when nobody reads them, and are then left out. */
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
    pending++;
    const skipped = dropped > 0 ? ` (${String(dropped)} events were not printed)` : '';
    if (skipped !== '') void io.stderr.write(`warning: nobody reads the events${skipped}\n`);
    dropped = 0;
    void io.stdout.write(`${format(entry)}\n`).finally(() => pending--);
  };
  return { stop: emulator.record.listen(print) };
}

const mostPending = 10_000;

/** Clients need the authority as a file: in the state directory, or beside the environment file. */
async function authorityFile(emulator: Emulator, flags: ServeFlags): Promise<string | undefined> {
  if (flags.state !== undefined) return join(flags.state, 'ca.pem');
  if (flags.writeEnv === undefined) return undefined;
  const file = `${flags.writeEnv}.ca.pem`;
  await written(file, writeAtomically(file, emulator.ca));
  return file;
}

async function writeEnvironment(file: string, emulator: Emulator, caFile: string | undefined): Promise<void> {
  await written(file, writeAtomically(file, environmentLines(emulator, caFile)));
}

async function written(file: string, writing: Promise<void>): Promise<void> {
  try {
    await writing;
  } catch (error) {
    throw new AgentError('cannot-create', `cannot write ${file}: ${errorText(error)}`, { cause: error });
  }
}

function greeting(emulator: Emulator, { writeEnv }: ServeFlags): string {
  const lines = [`ready: amqps://${emulator.hostName}`];
  for (const { deviceId } of emulator.devices) lines.push(`  device  ${deviceId}`);
  if (writeEnv !== undefined) lines.push(`  connection strings are in ${writeEnv}`);
  return `${lines.join('\n')}\n`;
}
