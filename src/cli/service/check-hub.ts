import { lookup } from 'node:dns/promises';
import type { TLSSocket } from 'node:tls';

import { toAgentError } from '../../amqp/errors.js';
import { openTlsSocket, type Endpoint, type WebSocketWay } from '../../amqp/socket.js';
import type { AgentError } from '../../errors.js';
import type { ServiceConnectionString } from '../../identity/connection-string.js';
import type { Log } from '../../log.js';
import { openServiceClient } from '../../service/client.js';
import { openCommandSender } from '../../service/commands.js';
import { EventHubConnection, findEventHub } from '../../service/event-hub.js';
import { openFeedback } from '../../service/feedback.js';
import { anyOf } from '../../signals.js';
import { formatDuration } from '../../units.js';
import { visible } from '../../visible.js';
import { exitCodeFor, exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { columns, type Printable, type Printer } from '../output.js';
import { restOf, serviceHub } from './hub.js';
import type { RestFlags } from './rest-options.js';

/** One thing that has to work. */
interface Check {
  name: string;
  /** Checks that have to work before: without them this one would only say the same again. */
  needs: readonly string[];
  /** Resolves with what there is to say about it; `warn` when it works and still deserves a look. */
  run: (signal: AbortSignal) => Promise<string | { warn: string }>;
}

type Verdict =
  | { result: 'ok' | 'warn'; detail: string }
  | { result: 'failed'; error: AgentError }
  | { result: 'skipped'; missing: string };

/** Makes all the checks, prints a line for each, and returns the exit code: that of the first that failed. */
export async function checkHub(
  io: Io,
  identity: ServiceConnectionString,
  { flags, log, printer }: { flags: RestFlags; log: Log; printer: Printer },
): Promise<number> {
  const results = new Map<string, Verdict>();
  let exitCode: number = exitCodes.ok;
  for (const check of await checksOf(io, identity, flags, log)) {
    const missing = check.needs.find((name) =>
      ['failed', 'skipped'].includes(results.get(name)?.result ?? ''),
    );
    const verdict: Verdict =
      missing === undefined ? await verdictOf(check, io, flags) : { result: 'skipped', missing };
    results.set(check.name, verdict);
    await printer.print(lineOf(check.name, verdict));
    if (verdict.result === 'failed' && exitCode === exitCodes.ok) exitCode = exitCodeFor(verdict.error.code);
  }
  return exitCode;
}

async function verdictOf({ run }: Check, io: Io, { timeout }: RestFlags): Promise<Verdict> {
  const patience = Number.isFinite(timeout) ? [AbortSignal.timeout(timeout)] : [];
  using until = anyOf(io.stop, ...patience);
  try {
    const said = await run(until);
    return typeof said === 'string' ? { result: 'ok', detail: said } : { result: 'warn', detail: said.warn };
  } catch (error) {
    io.stop.throwIfAborted();
    return { result: 'failed', error: toAgentError(error) };
  }
}

async function checksOf(
  io: Io,
  identity: ServiceConnectionString,
  flags: RestFlags,
  log: Log,
): Promise<Check[]> {
  const hub = await serviceHub(io, identity, { ...flags, log });
  const { endpoint } = hub;
  const { credential } = identity;
  return [
    {
      name: 'connection string',
      needs: [],
      run: () =>
        Promise.resolve(
          `${identity.host}, ${credential.kind === 'key' ? `policy ${credential.policyName}` : 'a ready-made token'}`,
        ),
    },
    {
      name: 'name',
      needs: [],
      run: async () => {
        const { proxy } = endpoint.webSocket ?? {};
        const addresses = await lookup(proxy?.host ?? endpoint.host, { all: true });
        const text = addresses.map(({ address }) => address).join(' ');
        return proxy === undefined ? text : `${text}, of the proxy ${proxy.host}, which looks up the hub`;
      },
    },
    {
      name: 'AMQP port, TLS',
      needs: ['name'],
      run: (signal) => tlsFacts(endpoint, signal),
    },
    {
      name: 'token',
      needs: ['AMQP port, TLS'],
      run: async (signal) => {
        await using _client = await openServiceClient(hub, signal);
        return 'the hub takes it';
      },
    },
    {
      name: 'commands',
      needs: ['token'],
      run: async (signal) => {
        await using client = await openServiceClient(hub, signal);
        await openCommandSender(client, signal);
        return 'may be sent';
      },
    },
    {
      name: 'feedback',
      needs: ['token'],
      run: async (signal) => {
        await using client = await openServiceClient(hub, signal);
        await openFeedback(client, { credit: 0, onBatch: () => undefined }, signal);
        return 'may be read';
      },
    },
    {
      name: 'event hub',
      needs: ['token'],
      run: async (signal) => {
        const eventHub = await findEventHub(hub, identity, signal);
        await using connection = await EventHubConnection.open(eventHub, signal);
        const partitions = await connection.partitionIds(signal);
        const { host, port } = eventHub.endpoint;
        return `${host}:${String(port)}/${eventHub.name}, ${String(partitions.length)} partitions`;
      },
    },
    {
      name: 'REST',
      needs: ['name'],
      run: async (signal) => {
        using rest = await restOf(io, identity, { ...flags, log });
        const { headers } = await rest.send({ method: 'GET', path: '/statistics/service' }, signal);
        return clockFacts(Date.parse(headers.date ?? ''));
      },
    },
  ];
}

/** Of the way that is taken: AMQP's own port, or a WebSocket. */
async function tlsFacts(endpoint: Endpoint, signal: AbortSignal): Promise<string | { warn: string }> {
  const { webSocket, eitherWay } = endpoint;
  if (webSocket !== undefined) return webSocketFacts(endpoint, webSocket, signal);
  using patience = anyOf(signal, AbortSignal.timeout(eitherWay === undefined ? 30_000 : otherWayAfterMs));
  try {
    return factsOf(endpoint.port, await openTlsSocket(endpoint, patience));
  } catch (error) {
    signal.throwIfAborted();
    const { code, message } = toAgentError(error);
    if (eitherWay === undefined || code !== 'unavailable') throw error;
    const facts = await webSocketFacts(endpoint, eitherWay.webSocket, signal);
    return { warn: `${message}; inside of a WebSocket: ${typeof facts === 'string' ? facts : facts.warn}` };
  }
}

const otherWayAfterMs = 5_000;

async function webSocketFacts(
  endpoint: Endpoint,
  webSocket: WebSocketWay,
  signal: AbortSignal,
): Promise<string | { warn: string }> {
  const { openTlsBelow } = await import('../../amqp/websocket.js');
  return factsOf(webSocket.port, await openTlsBelow(endpoint, webSocket, signal));
}

function factsOf(port: number, socket: TLSSocket): string | { warn: string } {
  try {
    return certificateFacts(port, socket);
  } finally {
    socket.destroy();
  }
}

/** A certificate that ends soon is worth a word, because nobody looks at it until it has ended. */
function certificateFacts(port: number, socket: TLSSocket): string | { warn: string } {
  const until = Date.parse(socket.getPeerCertificate().valid_to);
  const protocol = socket.getProtocol() ?? 'TLS';
  const text = `${String(port)}, ${protocol}, certificate until ${new Date(until).toISOString().slice(0, 10)}`;
  return until - Date.now() < certificateWarningMs ? { warn: text } : text;
}

const certificateWarningMs = 14 * 86_400_000;

/** A token carries a time: a clock that is off makes it expired, or good for longer than meant. */
function clockFacts(hubTime: number): string | { warn: string } {
  const offMs = Date.now() - hubTime;
  if (Number.isNaN(offMs) || Math.abs(offMs) < clockWarningMs) return 'it answers, and the clocks agree';
  const off = formatDuration(Math.abs(offMs));
  return { warn: `it answers; the clock of this machine is ${off} ${offMs > 0 ? 'fast' : 'slow'}` };
}

const clockWarningMs = 60_000;

/** `{"check":"token","result":"failed","error":"…","condition":"cbs:401","hint":"…"}` */
function lineOf(name: string, verdict: Verdict): Printable {
  return {
    json: () => jsonOnOneLine(JSON.stringify({ check: name, ...fieldsOf(verdict) })),
    text: ({ columns: limit }) => {
      const { result } = verdict;
      const word = result === 'failed' ? 'FAIL' : result;
      const [first = '', ...more] = textOf(verdict).map(visible);
      const line = columns([word, name, first], [7, 18], result === 'failed' ? undefined : limit);
      return [line, ...more.map((text) => `${' '.repeat(29)}${text}`)].join('\n');
    },
  };
}

function fieldsOf(verdict: Verdict): Record<string, unknown> {
  if (verdict.result === 'skipped') return { result: verdict.result, needs: verdict.missing };
  if (verdict.result !== 'failed') return verdict;
  const { message, condition, hint } = verdict.error;
  return { result: verdict.result, error: message, condition, hint };
}

function textOf(verdict: Verdict): string[] {
  switch (verdict.result) {
    case 'ok':
    case 'warn':
      return [verdict.detail];
    case 'skipped':
      return [`needs: ${verdict.missing}`];
    case 'failed':
      return [verdict.error.message, ...(verdict.error.hint?.split('\n') ?? [])];
  }
}
