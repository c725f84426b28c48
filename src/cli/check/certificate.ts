import { X509Certificate } from 'node:crypto';
import type { TLSSocket } from 'node:tls';

import { toAgentError } from '../../amqp/errors.js';
import { chainOf, shownCertificates, type ShownCertificate } from '../../amqp/peer-certificate.js';
import { openTlsSocket, type Endpoint } from '../../amqp/socket.js';
import { AgentError } from '../../errors.js';
import { anyOf } from '../../signals.js';
import { formatDuration } from '../../units.js';
import type { Finding } from './checks.js';
import type { Ways } from './ways.js';

/** Nobody looks at a certificate until it has ended. */
const warnBeforeMs = 14 * 86_400_000;

/** AMQP's own port may be open and say nothing: then there is time for the other way. */
const directWithinMs = 4_000;

/**
 * Makes the handshake as the agent does, on the way that it would take, and says who is trusted there, why, and for
 * how long. The value is that way.
 */
export async function checkTls(
  ways: Ways,
  isDirectOpen: boolean,
  signal: AbortSignal,
): Promise<Finding<Endpoint>> {
  const { direct, https, useOfWebSocket } = ways;
  if (direct !== undefined && isDirectOpen) {
    const found = await greetDirect(direct, signal);
    if (!(found instanceof AgentError)) return found;
    if (useOfWebSocket === 'never') throw found;
    const other = await greetBelow(https, signal);
    const hint = `${found.message}: AMQP has to go inside of a WebSocket`;
    return other.result === 'ok' ? { ...other, result: 'warn', hint } : other;
  }
  if (useOfWebSocket === 'never') {
    return { result: 'skipped', detail: 'not tried: the port cannot be reached' };
  }
  return await greetBelow(https, signal);
}

/** An error that is returned is one that the other way may get around: nobody answers. */
async function greetDirect(direct: Endpoint, signal: AbortSignal): Promise<Finding<Endpoint> | AgentError> {
  const silence = AbortSignal.timeout(directWithinMs);
  using until = anyOf(signal, silence);
  try {
    return await greet(direct, openTlsSocket, until);
  } catch (thrown) {
    signal.throwIfAborted();
    const error = toAgentError(thrown);
    if (error.code !== 'unavailable') throw error;
    if (!silence.aborted) return error;
    const what = `port ${String(direct.port)} is open, and says nothing to TLS within ${formatDuration(directWithinMs)}`;
    return new AgentError('unavailable', what, { hint: 'a firewall or a proxy may be in between' });
  }
}

/** The handshake below a WebSocket. */
async function greetBelow(https: Ways['https'], signal: AbortSignal): Promise<Finding<Endpoint>> {
  const { openTlsBelow } = await import('../../amqp/websocket.js');
  return await greet(https, (endpoint, until) => openTlsBelow(endpoint, https.webSocket, until), signal);
}

async function greet(
  way: Endpoint,
  open: (endpoint: Endpoint, signal: AbortSignal) => Promise<TLSSocket>,
  signal: AbortSignal,
): Promise<Finding<Endpoint>> {
  // Nobody is to be logged in by a look: a client certificate would say who we are.
  const socket = await open({ ...way, certificate: undefined }, signal).catch(async (error: unknown) => {
    throw await explained(error, way, signal);
  });
  try {
    const chain = chainOf(socket.getPeerCertificate(true));
    const protocol = socket.getProtocol() ?? 'TLS';
    const [own] = chain;
    if (own === undefined) return { result: 'ok', value: way, detail: protocol };
    const store = storeOf(chain, way);
    const leftMs = own.validTo - Date.now();
    const days = String(Math.floor(leftMs / 86_400_000));
    const isEnding = leftMs < warnBeforeMs;
    return {
      result: isEnding ? 'warn' : 'ok',
      value: way,
      detail: `${protocol.replace('v', ' ')}, "${own.subject}" until ${day(own.validTo)} (${days} days), signed by ${signers(chain)} (trusted: ${storeText[store]})`,
      hint: isEnding ? 'the certificate of the hub ends soon: whoever runs it has to renew it' : undefined,
      facts: { protocol, trustedBy: store, chain: chain.map(certificateFacts) },
    };
  } finally {
    socket.destroy();
  }
}

/** The same error, with what is on the certificate that it is about. */
async function explained(error: unknown, endpoint: Endpoint, signal: AbortSignal): Promise<unknown> {
  if (!(error instanceof AgentError) || error.code !== 'protocol') return error;
  const { code, message, condition, hint, cause } = error;
  const chain = await shownCertificates(endpoint, signal).catch(() => []);
  const facts = chain.length === 0 ? await otherProtocol(endpoint, signal) : certificateText(chain);
  const lines = [facts, hint].filter((line) => line !== undefined);
  return new AgentError(code, message, { condition, cause, hint: lines.join('\n') });
}

async function otherProtocol(endpoint: Endpoint, signal: AbortSignal): Promise<string | undefined> {
  const { spokenProtocol } = await import('../../amqp/spoken-protocol.js');
  const spoken = await spokenProtocol(endpoint, signal);
  return spoken === undefined ? undefined : `what answers on port ${String(endpoint.port)} is ${spoken}`;
}

function certificateText(chain: readonly ShownCertificate[]): string | undefined {
  const [own] = chain;
  if (own === undefined) return undefined;
  const names = own.names.length === 0 ? own.subject : own.names.join(', ');
  return `it is for ${names}; from ${day(own.validFrom)} to ${day(own.validTo)}; signed by ${signers(chain)}`;
}

function signers(chain: readonly ShownCertificate[]): string {
  const [own] = chain;
  if (own !== undefined && own.issuer === own.subject) return 'itself';
  return chain
    .map(({ issuer }) => `"${issuer}"`)
    .filter((issuer, at, all) => all.indexOf(issuer) === at)
    .join(', ');
}

/** Which of what we trust it was that spoke for the certificate. */
function storeOf(chain: readonly ShownCertificate[], { trust }: Endpoint): keyof typeof storeText {
  const added = [...(trust?.extraCa ?? '').matchAll(pemCertificate)].map(
    ([pem]) => new X509Certificate(pem).fingerprint256,
  );
  if (chain.some(({ fingerprint }) => added.includes(fingerprint))) return 'ca-file';
  return trust?.bundledRoots === true ? 'bundled' : 'system';
}

const storeText = {
  'ca-file': '--ca',
  system: 'the store of this system',
  bundled: 'what comes with Node.js, for this system has no store',
} as const;

const pemCertificate = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

function certificateFacts({ subject, issuer, names, validFrom, validTo }: ShownCertificate) {
  return {
    ...{ subject, issuer, names },
    validFrom: new Date(validFrom).toISOString(),
    validTo: new Date(validTo).toISOString(),
  };
}

function day(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}
