import { BlockList, isIPv6 } from 'node:net';

import { AgentError, errorText, systemErrorCode } from '../errors.js';
import type { Log } from '../log.js';
import { answer, answerText, openHttp, type Route, type Routes } from './http-server.js';
import type { Metrics, MetricsSources } from './metrics.js';
import type { Progress } from './progress.js';
import type { StatusBoard } from './status.js';

/** Where the metrics are: an address of this machine. */
export interface ListenAddress {
  host: string;
  port: number;
}

export interface Monitored extends MetricsSources {
  metrics: Metrics;
  progress: Pick<Progress, 'stuck'>;
  board: Pick<StatusBoard, 'state'>;
  /** Aborted when the agent stops. */
  stopping: AbortSignal;
}

/**
 * HTTP for those who watch the agent: `/metrics` for Prometheus, `/healthz` whether it gets on, `/readyz` whether it
 * takes work. It tells names and numbers and no secret, and changes nothing. Listens until it is disposed of.
 * Errors: `try-again` when the port is in use, `config`.
 */
export async function openMetricsListener(
  { host, port }: ListenAddress,
  monitored: Monitored,
  log: Log,
): Promise<AsyncDisposable> {
  return openHttp({
    name: 'the listener for metrics',
    routes: routesOf(monitored),
    mostConnections: 32,
    mostRequests: 0,
    log,
    listen: (server) =>
      new Promise((resolve, reject) => {
        server.once('error', (error) => {
          reject(cannotListen({ host, port }, error));
        });
        server.listen(port, host, () => {
          server.removeAllListeners('error');
          const address = server.address();
          const actual = typeof address === 'object' && address !== null ? address.port : port;
          const facts = { url: `http://${isIPv6(host) ? `[${host}]` : host}:${actual}/metrics` };
          if (isLoopback(host)) log.info('metrics are served', facts);
          else log.info('metrics are served, to whoever can reach this machine', facts);
          resolve();
        });
      }),
  });
}

function routesOf({ metrics, progress, board, stopping, ...sources }: Monitored): Routes {
  const text: Route = async ({ response }) => {
    answerText(response, 200, metrics.contentType, await metrics.text(sources));
  };
  const health: Route = ({ response }) => {
    const { stuck } = progress;
    answer(response, stuck.length === 0 ? 200 : 503, {
      healthy: stuck.length === 0,
      state: board.state,
      stuck,
    });
    return Promise.resolve();
  };
  // What was begun before the store was open and the listeners listened could not ask.
  const readiness: Route = ({ response }) => {
    const ready = !stopping.aborted;
    answer(response, ready ? 200 : 503, { ready, state: board.state });
    return Promise.resolve();
  };
  return { '/metrics': { GET: text }, '/healthz': { GET: health }, '/readyz': { GET: readiness } };
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

function isLoopback(host: string): boolean {
  return host === 'localhost' || loopback.check(host, isIPv6(host) ? 'ipv6' : 'ipv4');
}

function cannotListen({ host, port }: ListenAddress, cause: Error): AgentError {
  const inUse = systemErrorCode(cause) === 'EADDRINUSE';
  return new AgentError(
    inUse ? 'try-again' : 'config',
    `cannot serve metrics on ${host}:${port}: ${errorText(cause)}`,
    {
      cause,
      hint: 'name another address as "listen" under [metrics], or "" for none',
    },
  );
}
