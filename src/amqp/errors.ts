import { AgentError, errorText, systemErrorCode, type ErrorCode, type RetryClass } from '../errors.js';
import { tlsMeaning, type TlsFacts } from './tls-errors.js';

/** What the hub says when it refuses, detaches, ends or closes (AMQP 1.0 transport, 2.8.14). */
export interface AmqpErrorLike {
  condition?: string | undefined;
  description?: string | undefined;
}

/** What rhea hands over as the error of a link, a session or a connection. */
export function amqpError(error: unknown): AmqpErrorLike {
  return typeof error === 'object' && error !== null ? error : {};
}

/**
 * The one door through which foreign errors come in: sockets, DNS, TLS, rhea, and conditions that the hub named.
 *
 * An AMQP condition that is not in the table is `late`: the hub named it, so trying again at once will not help.
 * A JavaScript error that nobody recognises is a bug of ours.
 */
export function toAgentError(
  error: unknown,
  peer?: { host: string; port: number; tls?: TlsFacts | undefined },
): AgentError {
  if (error instanceof AgentError) return error;
  if (isTimeout(error))
    return new AgentError('unavailable', 'the hub did not answer in time', { cause: error });
  const where = peer === undefined ? 'the hub' : `${peer.host}:${String(peer.port)}`;
  const system = systemErrorCode(error);
  if (system !== undefined) return fromSystem(system, error, where, peer?.tls);
  if (isAmqpError(error)) return fromCondition(error);
  if (error instanceof Error && error.name === 'ProtocolError') {
    return new AgentError('protocol', `${where} broke the AMQP protocol: ${error.message}`, {
      cause: error,
      retry: 'soon',
    });
  }
  return new AgentError('bug', `unexpected: ${errorText(error)}`, { cause: error });
}

/** An error condition of the hub, as an error that says what it means and what to do. */
export function fromCondition({ condition, description }: AmqpErrorLike, what = 'the hub'): AgentError {
  const text = hubMessage(description);
  if (condition === undefined) return new AgentError('unavailable', `${what} gave no reason`, {});
  const meaning = meanings[condition];
  const said = text === undefined ? '' : `: ${text}`;
  return new AgentError(
    meaning?.code ?? 'try-again',
    `${meaning?.text ?? `${what} answered`} (${condition})${said}`,
    {
      condition,
      hint: meaning?.hint,
      retry: meaning?.retry ?? 'late',
    },
  );
}

/**
 * The readable part of an error description. The hub sends JSON with `errorCode`, `message` and a tracking id;
 * IoT Edge and others send plain text.
 */
export function hubMessage(description: string | undefined): string | undefined {
  if (description === undefined || description === '') return undefined;
  try {
    const parsed: unknown = JSON.parse(description);
    if (typeof parsed === 'string') return parsed;
    if (typeof parsed === 'object' && parsed !== null) {
      const { message, Message } = parsed as { message?: unknown; Message?: unknown };
      const text = message ?? Message;
      if (typeof text === 'string') return text;
    }
  } catch {
    // Not JSON: the text itself is the message.
  }
  return description;
}

/** What an error means to the owner of a device: who it is about comes before the text. */
export interface Meaning {
  code: ErrorCode;
  retry: RetryClass;
  text: string;
  hint?: string;
}

const credentialsHint =
  'the key may have been rotated, the device disabled, or the clock of this machine wrong; compare the connection string with the hub';

/** Conditions of the AMQP standard and of IoT Hub, with what they mean to the owner of a device. */
const meanings: Record<string, Meaning> = {
  'amqp:unauthorized-access': {
    code: 'refused',
    retry: 'late',
    text: 'the hub refused the credentials',
    hint: credentialsHint,
  },
  'amqp:not-found': {
    code: 'no-device',
    retry: 'late',
    text: 'the hub does not know this device',
    hint: 'check the device id, and that the device exists in this hub',
  },
  'amqp:not-allowed': { code: 'data', retry: 'late', text: 'the hub does not allow this' },
  'amqp:not-implemented': { code: 'data', retry: 'late', text: 'the hub does not implement this' },
  'amqp:resource-limit-exceeded': {
    code: 'try-again',
    retry: 'late',
    text: 'a quota of the hub is used up',
    hint: 'wait, or raise the limits of the hub (units, queue depth)',
  },
  'amqp:link:message-size-exceeded': {
    code: 'data',
    retry: 'late',
    text: 'the message is too large for the hub',
    hint: 'telemetry may have 256 KB with its properties, a command 64 KB',
  },
  'amqp:internal-error': { code: 'try-again', retry: 'soon', text: 'the hub had an internal error' },
  'amqp:link:detach-forced': { code: 'unavailable', retry: 'soon', text: 'the hub took the link down' },
  'amqp:link:stolen': {
    code: 'unavailable',
    retry: 'late',
    text: 'this identity is used elsewhere',
    hint: 'one device id may have one connection: look for a second agent with the same connection string',
  },
  'amqp:connection:forced': { code: 'unavailable', retry: 'soon', text: 'the hub closed the connection' },
  'amqp:session:window-violation': { code: 'protocol', retry: 'soon', text: 'the hub ended the session' },
  'com.microsoft:timeout': { code: 'try-again', retry: 'soon', text: 'the hub ran out of time' },
  'com.microsoft:server-busy': { code: 'try-again', retry: 'late', text: 'the hub is busy' },
  'com.microsoft:device-container-throttled': {
    code: 'try-again',
    retry: 'late',
    text: 'the hub throttles this device',
    hint: 'send less, or raise the units of the hub',
  },
  'com.microsoft:quota-exceeded': { code: 'try-again', retry: 'late', text: 'a quota of the hub is used up' },
  'com.microsoft:message-lock-lost': {
    code: 'try-again',
    retry: 'soon',
    text: 'the lock of the command has expired',
  },
  'com.microsoft:argument-error': {
    code: 'data',
    retry: 'late',
    text: 'the hub does not accept an argument',
  },
  'com.microsoft:argument-out-of-range': {
    code: 'data',
    retry: 'late',
    text: 'the hub does not accept an argument',
  },
  'com.microsoft:iot-hub-suspended': { code: 'refused', retry: 'late', text: 'the hub is suspended' },
  // The same condition means "gone" and "failing over", so it is tried again.
  'com.microsoft:iot-hub-not-found-error': { code: 'no-device', retry: 'late', text: 'there is no such hub' },
};

function fromSystem(code: string, error: unknown, where: string, tls?: TlsFacts): AgentError {
  const text = errorText(error);
  const known = systemMeanings[code] ?? tlsMeaning(code, text, tls);
  if (known !== undefined) {
    const { retry, hint } = known;
    return new AgentError(known.code, `${where} ${known.text} (${code})`, { cause: error, hint, retry });
  }
  if (code.startsWith('WS_ERR_')) {
    return new AgentError('protocol', `${where} broke the WebSocket protocol: ${text} (${code})`, {
      cause: error,
      retry: 'soon',
    });
  }
  if (/^E[A-Z]+$/.test(code))
    return new AgentError('unavailable', `${where} cannot be reached (${code})`, { cause: error });
  return new AgentError('protocol', `TLS with ${where} failed: ${text} (${code})`, { cause: error });
}

const unknownHost: Meaning = {
  code: 'host-unknown',
  retry: 'soon',
  text: 'cannot be found by name',
  hint: 'check HostName in the connection string, and DNS on this machine',
};
const systemMeanings: Record<string, Meaning> = {
  ENOTFOUND: unknownHost,
  EAI_AGAIN: { ...unknownHost, text: 'cannot be looked up: DNS does not answer' },
  ECONNREFUSED: {
    code: 'unavailable',
    retry: 'soon',
    text: 'refused the connection',
    hint: 'nothing listens there: check the host and port, and that the hub or emulator runs',
  },
  ETIMEDOUT: {
    code: 'unavailable',
    retry: 'soon',
    text: 'did not answer',
    hint: 'a firewall may block port 5671',
  },
  ECONNRESET: { code: 'unavailable', retry: 'soon', text: 'dropped the connection' },
  EPIPE: { code: 'unavailable', retry: 'soon', text: 'dropped the connection' },
};

function isAmqpError(error: unknown): error is AmqpErrorLike {
  return typeof error === 'object' && error !== null && 'condition' in error;
}

function isTimeout(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'TimeoutError';
}
