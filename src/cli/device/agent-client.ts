import { request, type ClientRequest, type IncomingMessage } from 'node:http';

import type { AgentConfig } from '../../daemon/config.js';
import type { AgentStatus } from '../../daemon/status.js';
import { AgentError, systemErrorCode } from '../../errors.js';
import type { DeviceConnectionString } from '../../identity/connection-string.js';
import type { Log } from '../../log.js';
import { controlPaths } from '../control-path.js';
import type { Io } from '../io.js';

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
  const { host, deviceId, moduleId } = identity;
  for (const socket of controlPaths(io, identity, config?.control.socket)) {
    const status = await askStatus(socket, log);
    if (status === undefined) continue;
    const isSame =
      status.hub.toLowerCase() === host.toLowerCase() &&
      status.deviceId === deviceId &&
      status.moduleId === moduleId;
    if (isSame) return { socket, status };
  }
  return undefined;
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
    const parts: Buffer[] = [];
    let length = 0;
    for await (const part of answer) {
      parts.push(part as Buffer);
      length += (part as Buffer).length;
      if (length > longestAnswerBytes) throw new AgentError('protocol', 'what answers there is no agent');
    }
    return { status: answer.statusCode ?? 0, body: parsed(Buffer.concat(parts).toString()) };
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
