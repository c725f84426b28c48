import { randomUUID } from 'node:crypto';

import type { EventContext, Message } from 'rhea';

import { AgentError, type ErrorCode } from '../errors.js';
import type { Token } from '../identity/token.js';
import type { AmqpConnection } from './connection.js';

/**
 * Claims-based security: puts tokens on the `$cbs` node of the hub (AMQP CBS working draft 1; wire type
 * `servicebus.windows.net:sastoken`). Its links live on a session of their own, because a telemetry link without
 * credit would block the transfer of a new token behind it, and the connection would die of the old one.
 */
export interface Cbs {
  /** Resolves when the hub took the token; a later token for the same audience replaces it. */
  putToken(token: Token, signal: AbortSignal): Promise<void>;
}

/** Begins the session and both links without waiting: the first put-token leaves as soon as there is credit. */
export function openCbs(connection: AmqpConnection): Cbs {
  const session = connection.rhea.create_session();
  session.begin();
  const sender = session.attach_sender({
    name: `$cbs request link/${randomUUID()}`,
    target: { address: '$cbs' },
  });
  const receiver = session.attach_receiver({
    name: `$cbs response link/${randomUUID()}`,
    source: { address: '$cbs' },
    credit_window: 10,
  });

  const waiting = new Map<string, (response: Message) => void>();
  receiver.on('message', ({ message }: EventContext) => {
    const id = message?.correlation_id;
    // A reply that nobody waits for is late, or not ours.
    if (message !== undefined && typeof id === 'string') waiting.get(id)?.(message);
  });

  return {
    async putToken(token, signal) {
      const messageId = randomUUID();
      const until = AbortSignal.any([signal, connection.over]);
      until.throwIfAborted();
      const response = await new Promise<Message>((resolve, reject) => {
        until.addEventListener('abort', () => {
          reject(until.reason as Error);
        });
        waiting.set(messageId, resolve);
        sender.send(putTokenRequest(messageId, token));
      }).finally(() => waiting.delete(messageId));
      checkResponse(response);
    },
  };
}

function putTokenRequest(messageId: string, { audience, value }: Token): Message {
  return {
    message_id: messageId,
    to: '$cbs',
    reply_to: 'cbs',
    application_properties: {
      operation: 'put-token',
      type: 'servicebus.windows.net:sastoken',
      name: audience,
    },
    body: value.reveal(),
  };
}

function checkResponse({ application_properties: properties }: Message): void {
  const answer = properties as Record<string, unknown> | undefined;
  const status = Number(answer?.['status-code']);
  if (status >= 200 && status < 300) return;
  const said = answer?.['status-description'];
  const description = typeof said === 'string' && said !== '' ? said : 'no description';
  const { code, text, hint } = meaningOf(status);
  throw new AgentError(code, `${text} (status ${String(status)}): ${description}`, {
    condition: `cbs:${String(status)}`,
    hint,
    retry: code === 'refused' || code === 'no-device' ? 'late' : 'soon',
  });
}

function meaningOf(status: number): { code: ErrorCode; text: string; hint?: string } {
  if (status === 401 || status === 403) {
    return {
      code: 'refused',
      text: 'the hub refused the token',
      hint: `the key may be wrong or rotated, the device disabled, or the clock off (it says ${new Date().toISOString()})`,
    };
  }
  if (status === 404) {
    return { code: 'no-device', text: 'the hub does not know this device', hint: 'check the device id' };
  }
  if (status === 429) return { code: 'try-again', text: 'the hub throttles' };
  if (status >= 500) return { code: 'try-again', text: 'the hub could not take the token' };
  return { code: 'protocol', text: 'the hub did not understand the token request' };
}
