import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';

import { toAgentError } from '../../amqp/errors.js';
import { openTcpSocket, type Endpoint } from '../../amqp/socket.js';
import { AgentError } from '../../errors.js';
import { anyOf } from '../../signals.js';
import { formatDuration } from '../../units.js';
import type { Finding } from './checks.js';
import type { Ways } from './ways.js';

/** The addresses behind a name. */
export async function lookUp({ host, port }: Pick<Endpoint, 'host' | 'port'>): Promise<Finding<string[]>> {
  if (isIP(host) !== 0) return { result: 'ok', detail: `${host} is an address`, value: [host] };
  try {
    const found = await lookup(host, { all: true });
    const addresses = found.map(({ address }) => address);
    const detail = `${host} is ${addresses.join(', ')}`;
    return { result: 'ok', detail, value: addresses, facts: { host, addresses } };
  } catch (error) {
    throw toAgentError(error, { host, port });
  }
}

/** Of three attempts of TCP, at 0, 1 and 3 s. */
const connectWithinMs = 4_000;

interface Failed {
  address: string;
  error: AgentError;
}
type Attempt = { address: string; ms: number } | Failed;

/**
 * Whether AMQP's own port is open. Connects to each of the addresses: a name server that gives one too many is a
 * riddle otherwise.
 */
export async function checkPort(
  addresses: readonly string[],
  { direct, https, useOfWebSocket }: Ways,
  signal: AbortSignal,
): Promise<Finding<boolean>> {
  if (direct === undefined) {
    return {
      result: 'ok',
      value: false,
      detail: `not needed: AMQP goes inside of a WebSocket, by port ${String(https.port)}`,
    };
  }
  const { host, port } = direct;
  using until = anyOf(signal, AbortSignal.timeout(connectWithinMs));
  const attempts = await Promise.all(addresses.map((address) => tryAddress(address, port, until)));
  signal.throwIfAborted();
  const reached = attempts.filter((attempt) => 'ms' in attempt);
  const failed = attempts.filter((attempt) => 'error' in attempt);
  const facts = {
    port,
    reached: reached.map(({ address }) => address),
    unreached: failed.map(({ address }) => address),
  };
  const [first] = reached;
  if (first !== undefined) {
    const others = failed.map(({ address, error }) => `${address}: ${shortly(error)}`).join(', ');
    const detail = `port ${String(port)} is open, ${String(first.ms)} ms away${others === '' ? '' : ` (but ${others})`}`;
    return { result: 'ok', value: true, detail, facts };
  }
  const error = failureOf(failed, host, port);
  if (useOfWebSocket === 'never') return { result: 'failed', value: false, error };
  const hint = `so AMQP has to go inside of a WebSocket, by port ${String(https.port)}`;
  return { result: 'warn', value: false, detail: error.message, hint, facts };
}

async function tryAddress(address: string, port: number, signal: AbortSignal): Promise<Attempt> {
  const startedAt = performance.now();
  try {
    const socket = await openTcpSocket({ host: address, port }, signal);
    socket.destroy();
    return { address, ms: Math.round(performance.now() - startedAt) };
  } catch (error) {
    return { address, error: toAgentError(error, { host: address, port }) };
  }
}

/** That of IPv4, if there is one: it is what most networks have. */
function failureOf(failed: readonly Failed[], host: string, port: number): AgentError {
  const telling = failed.find(({ address }) => isIP(address) === 4) ?? failed[0];
  const cause = telling?.error.cause;
  if (!isTimeout(cause)) return toAgentError(cause ?? telling?.error, { host, port });
  const what = `${host}:${String(port)} does not answer within ${formatDuration(connectWithinMs)}`;
  return new AgentError('unavailable', what, {
    hint: 'a firewall may drop what goes to this port: ask who runs the network to open it to the hub',
  });
}

function isTimeout(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'TimeoutError';
}

/** `ECONNREFUSED`. */
function shortly({ message }: AgentError): string {
  return /\((E[A-Z]+)\)$/.exec(message)?.[1] ?? message;
}
