import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';

import { AgentError, type ErrorCode, type RetryClass } from '../errors.js';
import type { Secret } from '../secret.js';
import { rejectionOf } from '../signals.js';
import { toAgentError } from './errors.js';
import { openTcpSocket, openTlsSocket, type Endpoint } from './socket.js';

/** An HTTP proxy that takes CONNECT (RFC 9110, 9.3.6). */
export interface HttpProxy {
  host: string;
  port: number;
  /** Whether the proxy itself is spoken to with TLS (`https://`). */
  tls: boolean;
  /** Value of `Proxy-Authorization`. */
  authorization?: Secret | undefined;
}

/** A connection through the proxy to where the endpoint is; the first byte that comes is the endpoint's. */
export async function openTunnel(
  proxy: HttpProxy,
  { host, port, trust }: Pick<Endpoint, 'host' | 'port' | 'trust'>,
  signal: AbortSignal,
): Promise<Socket> {
  const socket = await connectTo(proxy, trust, signal);
  try {
    const answer = await Promise.race([ask(socket, proxy, `${host}:${String(port)}`), rejectionOf(signal)]);
    const { statusCode: status = 0 } = answer;
    if (status < 200 || status > 299) throw refusal(answer, proxy, `${host}:${String(port)}`);
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

async function connectTo(proxy: HttpProxy, trust: Endpoint['trust'], signal: AbortSignal): Promise<Socket> {
  const { host, port, tls } = proxy;
  try {
    return tls
      ? await openTlsSocket({ host, port, trust }, signal)
      : await openTcpSocket({ host, port }, signal);
  } catch (error) {
    signal.throwIfAborted();
    const { code, message, retry, cause } = toAgentError(error);
    throw new AgentError(code, `the proxy ${message}`, {
      ...{ retry, cause },
      hint: 'check --proxy, the proxy in the configuration, or HTTPS_PROXY; hosts in NO_PROXY go without it',
    });
  }
}

function ask(socket: Socket, proxy: HttpProxy, target: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const connect = request({
      createConnection: () => socket,
      method: 'CONNECT',
      path: target,
      headers: {
        host: target,
        ...(proxy.authorization && { 'proxy-authorization': proxy.authorization.reveal() }),
      },
    });
    connect.on('connect', (answer: IncomingMessage, _socket, head: Buffer) => {
      if (head.length > 0) socket.unshift(head);
      resolve(answer);
    });
    connect.on('error', (error: NodeJS.ErrnoException) => {
      const { host, port } = proxy;
      const where = `the proxy ${host}:${String(port)}`;
      reject(
        error.code?.startsWith('HPE_') === true
          ? new AgentError('protocol', `${where} does not answer as an HTTP proxy does`, { cause: error })
          : new AgentError('unavailable', `${where} dropped the connection`, { cause: error }),
      );
    });
    connect.end();
  });
}

interface Meaning {
  code: ErrorCode;
  retry: RetryClass;
  text: string;
  hint: string;
}

function refusal(answer: IncomingMessage, proxy: HttpProxy, target: string): AgentError {
  const { statusCode: status = 0, statusMessage = '' } = answer;
  const { code, retry, text, hint } = meaningOf(answer, proxy, target);
  const said = `${String(status)} ${statusMessage}`.trim();
  return new AgentError(code, `the proxy ${proxy.host}:${String(proxy.port)} ${text} (${said})`, {
    condition: `proxy:${String(status)}`,
    ...{ retry, hint },
  });
}

function meaningOf(
  { statusCode: status = 0, headers }: IncomingMessage,
  { authorization }: HttpProxy,
  target: string,
): Meaning {
  if (status === 407) {
    const schemes = [headers['proxy-authenticate'] ?? []].flat().join(', ');
    const basic = schemes === '' || /\bbasic\b/i.test(schemes);
    return {
      code: 'refused',
      retry: 'late',
      text:
        authorization === undefined
          ? 'wants a user name and a password'
          : 'refused the user name or the password',
      hint: basic
        ? 'give them as http://USER:PASSWORD@HOST:PORT in HTTPS_PROXY or in the configuration; percent-encode : / @'
        : `it asks for ${schemes}, and only Basic is known here; a local proxy such as cntlm can stand in between`,
    };
  }
  if (status === 401 || status === 403 || status === 405) {
    return {
      code: 'refused',
      retry: 'late',
      text: `does not allow a connection to ${target}`,
      hint: `who runs the proxy has to allow CONNECT ${target}`,
    };
  }
  if (status === 429 || status >= 500) {
    return {
      code: 'unavailable',
      retry: 'soon',
      text: `cannot reach ${target}`,
      hint: 'check HostName in the connection string; the proxy looks the name up, not this machine',
    };
  }
  return {
    code: 'protocol',
    retry: 'late',
    text: 'does not take CONNECT',
    hint: 'it may be a web server rather than a proxy: check --proxy, the configuration, or HTTPS_PROXY',
  };
}
