import { request, type ClientRequest, type IncomingMessage } from 'node:http';

import type { AgentConfig } from '../../daemon/config.js';
import type { AgentStatus } from '../../daemon/status.js';
import { AgentError, systemErrorCode, type ErrorCode } from '../../errors.js';
import type { DeviceConnectionString } from '../../identity/connection-string.js';
import type { Log } from '../../log.js';
import type { ConfigFlags } from '../config-options.js';
import { controlPaths, controlPathsOfAll } from '../control-path.js';
import { readDeviceIdentity, type IdentityFlags } from '../identity-options.js';
import type { Io } from '../io.js';
import { namedConfig } from './spool-options.js';

/** An agent that answers on its control socket. */
export interface RunningAgent {
  socket: string;
  status: AgentStatus;
}

/** The agent that runs for a device here, if there is one that may be spoken to. */
export async function agentOf(
  io: Io,
  identity: DeviceConnectionString,
  config: AgentConfig | undefined,
  log: Log,
): Promise<RunningAgent | undefined> {
  const agents = await agentsAt(controlPaths(io, identity, config?.control.socket), log);
  return agents.find(({ status }) => speaksFor(status, identity));
}

/** What says which agent is meant. */
export interface AgentFlags extends ConfigFlags, IdentityFlags {
  socket?: string;
}

/** What the flags say of the agent that is meant. */
export interface Meant {
  /** Where it may listen. */
  sockets: string[];
  /** Who it is, if that is known and it was needed to find the sockets. */
  identity: DeviceConnectionString | undefined;
  config: AgentConfig | undefined;
  /** Reads who it is if that is not done yet, for that can be done once. Errors: as `readDeviceIdentity`. */
  whoItIs: () => Promise<DeviceConnectionString>;
}

export async function meantBy(io: Io, flags: AgentFlags): Promise<Meant> {
  const config = await namedConfig(io, flags).catch((error: unknown) => {
    // That of a service is not for everyone; who may use its socket may ask all the same.
    if (flags.config === undefined && error instanceof AgentError && error.code === 'io') return undefined;
    throw error;
  });
  let reading: Promise<DeviceConnectionString> | undefined;
  const whoItIs = () => (reading ??= readDeviceIdentity(io, flags, config?.hub));
  const named = flags.socket ?? config?.control.socket;
  if (named) return { sockets: [named], identity: undefined, config, whoItIs };
  try {
    const identity = await whoItIs();
    return { sockets: controlPaths(io, identity, config?.control.socket), identity, config, whoItIs };
  } catch (error) {
    // The key of an agent that runs as a service is not for everyone; who may use its socket may ask all the same.
    if (!(error instanceof AgentError)) throw error;
    return { sockets: await controlPathsOfAll(io), identity: undefined, config, whoItIs };
  }
}

/** The agent that is meant, if it runs here. Errors: `usage` when it may be one or another. */
export async function runningAgent(
  { sockets, identity }: Meant,
  log: Log,
): Promise<RunningAgent | undefined> {
  const agents = await agentsAt(sockets, log);
  const [agent, another] = agents.filter(
    ({ status }) => identity === undefined || speaksFor(status, identity),
  );
  if (another !== undefined) throw severalAgents(agents);
  return agent;
}

/** The agent that is this process. */
export async function agentOfProcess(
  io: Io,
  { sockets }: Meant,
  pid: number,
  log: Log,
): Promise<RunningAgent | undefined> {
  const agents = await agentsAt([...new Set([...sockets, ...(await controlPathsOfAll(io))])], log);
  return agents.find(({ status }) => status.pid === pid);
}

export async function agentsAt(sockets: readonly string[], log: Log): Promise<RunningAgent[]> {
  const asked = sockets.map(async (socket) => {
    const status = await askStatus(socket, log);
    return status && { socket, status };
  });
  return (await Promise.all(asked)).filter((agent) => agent !== undefined);
}

export function severalAgents(agents: readonly RunningAgent[]): AgentError {
  const devices = agents.map(({ status }) => status.deviceId).join(', ');
  return new AgentError('usage', 'several agents run here', {
    hint: `say which by its identity or its configuration: ${devices}`,
  });
}

function speaksFor(status: AgentStatus, { host, deviceId, moduleId }: DeviceConnectionString): boolean {
  return (
    status.hub.toLowerCase() === host.toLowerCase() &&
    status.deviceId === deviceId &&
    status.moduleId === moduleId
  );
}

/** What the agent behind a socket says of itself; undefined when none answers there. */
export async function askStatus(socket: string, log: Log): Promise<AgentStatus | undefined> {
  try {
    const { body } = await ask(socket, 'GET', '/v1/status');
    return body as AgentStatus;
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'EACCES') log.warn('an agent may be running, and you may not speak to it', { socket });
    else if (code !== 'ENOENT' && code !== 'ECONNREFUSED')
      log.warn('no answer from an agent', { socket, error });
    return undefined;
  }
}

/** One request to an agent, and its answer. Errors: what the agent says, `unavailable` when it says nothing. */
export async function askFor(socket: string, method: string, path: string): Promise<unknown> {
  const { status, body } = await ask(socket, method, path);
  if (status < 300) return body;
  throw refusal(status, body);
}

/** What an agent says that refuses. */
export async function refusedBy(answer: IncomingMessage): Promise<AgentError> {
  return refusal(answer.statusCode ?? 0, parsed(await textOf(answer)));
}

function refusal(status: number, body: unknown): AgentError {
  const { error, code, hint } = body as { error?: string; code?: ErrorCode; hint?: string };
  return new AgentError(code ?? 'protocol', error ?? `the agent answered with the status ${status}`, {
    hint,
  });
}

async function textOf(answer: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of answer) {
    parts.push(part as Buffer);
    length += (part as Buffer).length;
    if (length > longestAnswerBytes) throw new AgentError('protocol', 'what answers there is no agent');
  }
  return Buffer.concat(parts).toString();
}

const answerWithinMs = 5_000;
/** Of an answer; the longest is an inbox of a thousand commands. */
const longestAnswerBytes = 16 * 1024 * 1024;

/** One request and its answer. Errors: those of the system when nobody listens, `unavailable` when it is silent. */
export async function ask(
  socket: string,
  method: string,
  path: string,
  timeoutMs = answerWithinMs,
): Promise<{ status: number; body: unknown }> {
  const [asked, response] = openRequest(socket, method, path);
  const timer = setTimeout(() => {
    asked.destroy(
      new AgentError('unavailable', `the agent did not answer within ${String(timeoutMs / 1000)} s`),
    );
  }, timeoutMs);
  try {
    asked.end();
    const answer = await response;
    return { status: answer.statusCode ?? 0, body: parsed(await textOf(answer)) };
  } finally {
    clearTimeout(timer);
    asked.destroy();
  }
}

/** Begins a request; the promise is for the head of its answer. */
export function openRequest(
  socket: string,
  method: string,
  path: string,
  headers: Record<string, string> = {},
): [ClientRequest, Promise<IncomingMessage>] {
  const opened = request({ socketPath: socket, method, path, headers, agent: false, host: 'agent' });
  const response = new Promise<IncomingMessage>((resolve, reject) => {
    opened.on('response', resolve);
    opened.on('error', reject);
  });
  response.catch(() => undefined); // thrown where it is awaited
  return [opened, response];
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new AgentError('protocol', 'what answers there is no agent');
  }
}
