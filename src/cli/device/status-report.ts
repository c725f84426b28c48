import type { AgentStatus, HandlerStatus } from '../../daemon/status.js';
import { systemClock } from '../../clock.js';
import { AgentError } from '../../errors.js';
import type { Log } from '../../log.js';
import { formatDuration, formatSize } from '../../units.js';
import { visible } from '../../visible.js';
import { exitCodeFor, exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { createPrinter, type Printable, type TextLook } from '../output.js';
import { agentsAt, meantBy, severalAgents } from './agent-client.js';
import type { StatusFlags } from './status.js';

/** Prints how the agent fares and returns the exit code. Errors: `unavailable` when none runs. */
export async function printStatus(io: Io, flags: StatusFlags, log: Log): Promise<number> {
  const { sockets } = await meantBy(io, flags);
  const found = await agentsAt(sockets, log);
  const [agent, another] = found;
  if (agent === undefined) {
    throw new AgentError('unavailable', 'no agent is running here', {
      hint:
        sockets.length === 0
          ? 'name its control socket with --socket PATH'
          : `nobody answers on ${sockets.join(', ')}`,
    });
  }
  if (another !== undefined) throw severalAgents(found);
  const { status } = agent;
  await createPrinter(io, flags).print(statusPage(status));
  return exitCodeOf(status);
}

const lookEveryMs = 1_000;

/** Prints a line whenever something has changed, until nobody wants more; returns the exit code. */
export async function watchStatus(io: Io, flags: StatusFlags, log: Log): Promise<number> {
  const { sockets } = await meantBy(io, flags);
  const printer = createPrinter(io, flags);
  const until = AbortSignal.any([io.stop, io.stdout.readerGone]);
  let last: string | undefined;
  while (!until.aborted) {
    const [agent] = await agentsAt(sockets, log);
    const line = statusLine(agent?.status);
    const look = { columns: undefined, time: String };
    const now = line.text(look);
    if (now !== last) await printer.print(line);
    last = now;
    await systemClock.sleep(lookEveryMs, until).catch(() => undefined);
  }
  return exitCodes.ok;
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
