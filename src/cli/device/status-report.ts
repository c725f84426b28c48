import type { AgentStatus, HandlerStatus } from '../../daemon/status.js';
import { systemClock } from '../../clock.js';
import { AgentError } from '../../errors.js';
import type { Log } from '../../log.js';
import { formatDuration, formatSize } from '../../units.js';
import { visible } from '../../visible.js';
import { controlPaths, controlPathsOfAll } from '../control-path.js';
import { exitCodeFor, exitCodes } from '../exit-codes.js';
import { readDeviceIdentity } from '../identity-options.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { createPrinter, type Printable, type TextLook } from '../output.js';
import { askStatus } from './agent-client.js';
import { namedConfig } from './spool-options.js';
import type { StatusFlags } from './status.js';

/** Prints how the agent fares and returns the exit code. Errors: `unavailable` when none runs. */
export async function printStatus(io: Io, flags: StatusFlags, log: Log): Promise<number> {
  const paths = await pathsOf(io, flags);
  const found = await findStatuses(paths, log);
  const [status, another] = found;
  if (status === undefined) {
    throw new AgentError('unavailable', 'no agent is running here', {
      hint:
        paths.length === 0
          ? 'name its control socket with --socket PATH'
          : `nobody answers on ${paths.join(', ')}`,
    });
  }
  if (another !== undefined) {
    throw new AgentError('usage', 'several agents run here', {
      hint: `say which with --socket PATH, or by its identity: ${found.map(({ deviceId }) => deviceId).join(', ')}`,
    });
  }
  await createPrinter(io, flags).print(statusPage(status));
  return exitCodeOf(status);
}

const lookEveryMs = 1_000;

/** Prints a line whenever something has changed, until nobody wants more; returns the exit code. */
export async function watchStatus(io: Io, flags: StatusFlags, log: Log): Promise<number> {
  const paths = await pathsOf(io, flags);
  const printer = createPrinter(io, flags);
  const until = AbortSignal.any([io.stop, io.stdout.readerGone]);
  let last: string | undefined;
  while (!until.aborted) {
    const [status] = await findStatuses(paths, log);
    const line = statusLine(status);
    const look = { columns: undefined, time: String };
    const now = line.text(look);
    if (now !== last) await printer.print(line);
    last = now;
    await systemClock.sleep(lookEveryMs, until).catch(() => undefined);
  }
  return exitCodes.ok;
}

async function pathsOf(io: Io, flags: StatusFlags): Promise<string[]> {
  if (flags.socket !== undefined) return [flags.socket];
  const config = await namedConfig(io, flags).catch((error: unknown) => {
    // That of a service is not for everyone; who may use its socket may ask all the same.
    if (flags.config === undefined && error instanceof AgentError && error.code === 'io') return undefined;
    throw error;
  });
  if (config?.control.socket) return [config.control.socket];
  try {
    const identity = await readDeviceIdentity(io, flags, config?.hub);
    return controlPaths(io, identity, config?.control.socket);
  } catch (error) {
    // The key of an agent that runs as a service is not for everyone; who may use its socket may ask all the same.
    if (error instanceof AgentError) return controlPathsOfAll(io);
    throw error;
  }
}

async function findStatuses(paths: readonly string[], log: Log): Promise<AgentStatus[]> {
  const found = await Promise.all(paths.map((path) => askStatus(path, log)));
  return found.filter((status) => status !== undefined);
}

function exitCodeOf({ state }: AgentStatus): number {
  return state === 'online' ? exitCodes.ok : exitCodeFor('try-again');
}

function statusPage(status: AgentStatus): Printable {
  return {
    json: () => jsonOnOneLine(JSON.stringify(status)),
    text: (look) =>
      rowsOf(status, look)
        .map(([name, value]) => `${name.padEnd(10)}  ${visible(value)}`)
        .join('\n'),
  };
}

function rowsOf(status: AgentStatus, { time }: TextLook): [string, string][] {
  const at = (text: string): string => time(Date.parse(text));
  const { hub, deviceId, moduleId, pid, version, lastError, telemetry, inbox, handlers } = status;
  const { tokenExpiresAt, certificateExpiresAt } = status;
  const attempt = status.attempt === undefined ? '' : `, attempt ${String(status.attempt)}`;
  const nextTry = status.nextTryAt === undefined ? '' : `, next try ${at(status.nextTryAt)}`;
  return [
    ['state', `${status.state} since ${at(status.since)}${attempt}${nextTry}`],
    ['device', `${[deviceId, moduleId].filter((id) => id !== undefined).join('/')} on ${hub}`],
    ['agent', `process ${String(pid)}, version ${version}, started ${at(status.startedAt)}`],
    ...(lastError ? [row('last error', `${at(lastError.at)}: ${lastError.error}`)] : []),
    ...(tokenExpiresAt === undefined ? [] : [row('token', `until ${at(tokenExpiresAt)}, renewed before`)]),
    ...(certificateExpiresAt === undefined
      ? []
      : [row('credential', `a certificate, until ${at(certificateExpiresAt)}`)]),
    [
      'telemetry',
      telemetry.flow === 'open' ? 'flows' : `${telemetry.flow}: ${telemetry.why} (${telemetry.condition})`,
    ],
    ['spool', spoolText(status)],
    ['inbox', `${String(inbox.waiting)} waiting, ${String(inbox.dead)} given up`],
    ...handlers.map((handler) => row('handler', handlerText(handler, at))),
  ];
}

function row(name: string, value: string): [string, string] {
  return [name, value];
}

function spoolText({ spool: { waiting, oldestAgeMs, deadLetters, dropped } }: AgentStatus): string {
  const lost = Object.values(dropped).reduce((sum, { count }) => sum + count, 0);
  const parts = [
    `${String(waiting.count)} waiting, ${formatSize(waiting.bytes)}`,
    oldestAgeMs === undefined
      ? undefined
      : `the oldest for ${formatDuration(Math.round(oldestAgeMs / 1000) * 1000)}`,
    `${String(deadLetters.count)} rejected`,
    `${String(lost)} dropped`,
  ];
  return parts.filter((part) => part !== undefined).join(', ');
}

function handlerText(
  { name, on, state, reason, since }: HandlerStatus,
  at: (text: string) => string,
): string {
  const well =
    state === 'ok' ? 'ok' : `degraded since ${since === undefined ? '?' : at(since)}: ${reason ?? 'unknown'}`;
  return `${name} (${on}): ${well}`;
}

/** One line; it is the same as long as nothing of note has changed. */
function statusLine(status: AgentStatus | undefined): Printable {
  if (status === undefined) return { json: () => '{"state":"not running"}', text: () => 'not running' };
  const { state, deviceId, spool, lastError, attempt, handlers } = status;
  const ill = handlers.filter((handler) => handler.state === 'degraded').map(({ name }) => name);
  const parts = [
    state,
    attempt === undefined ? undefined : `attempt ${String(attempt)}`,
    deviceId,
    `${String(spool.waiting.count)} waiting`,
    state === 'online' ? undefined : lastError?.error,
    ill.length === 0 ? undefined : `degraded: ${ill.join(', ')}`,
  ];
  const text = visible(parts.filter((part) => part !== undefined).join('; '));
  return { json: () => jsonOnOneLine(JSON.stringify(status)), text: () => text };
}
