import { randomUUID } from 'node:crypto';

import type { EventContext, Message, Sender } from 'rhea';

import { AgentError, type ErrorCode } from '../errors.js';
import type { Token } from '../identity/token.js';
import { anyOf } from '../signals.js';
import type { AmqpConnection } from './connection.js';
import { untilEvent } from './events.js';
import { SessionScope } from './scope.js';

/** What the hub said to a token that it took. */
export interface TokenAnswer {
  status: number;
  description: string | undefined;
}

/**
 * Claims-based security: puts tokens on the `$cbs` node of the hub (AMQP CBS working draft 1; wire type
 * `servicebus.windows.net:sastoken`). Its links live on a session of their own, because a telemetry link without
 * credit would block the transfer of a new token behind it, and the connection would die of the old one.
 */
export class Cbs {
  readonly #connection: AmqpConnection;
  #links: CbsLinks;
  #token: Token | undefined;

  /** Begins the session and both links without waiting: the first put-token leaves as soon as there is credit. */
  constructor(connection: AmqpConnection) {
    this.#connection = connection;
    this.#links = new CbsLinks(connection);
  }

  /**
   * Resolves when the hub took the token; a later token for the same audience replaces it. Links that the hub has
   * taken down meanwhile, for idleness say, are opened anew.
   */
  async putToken(token: Token, signal: AbortSignal): Promise<TokenAnswer> {
    if (this.#links.over.aborted) this.#links = new CbsLinks(this.#connection);
    const answer = await this.#links.putToken(token, signal);
    this.#token = token;
    return answer;
  }

  /** Resolves when the hub has granted credit for a request, which leaves then; what is begun next comes right behind it. */
  granted(signal: AbortSignal): Promise<void> {
    return this.#links.granted(signal);
  }

  /** The last one that the hub took on this connection. */
  get token(): Token | undefined {
    return this.#token;
  }
}

class CbsLinks {
  readonly #scope: SessionScope;
  readonly #sender: Sender;
  readonly #waiting = new Map<string, (response: Message) => void>();

  constructor(connection: AmqpConnection) {
    this.#scope = new SessionScope(connection);
    const { session } = this.#scope;
    this.#sender = session.attach_sender({
      name: `$cbs request link/${randomUUID()}`,
      target: { address: '$cbs' },
    });
    const receiver = session.attach_receiver({
      name: `$cbs response link/${randomUUID()}`,
      source: { address: '$cbs' },
      credit_window: 10,
    });
    receiver.on('message', ({ message }: EventContext) => {
      const id = message?.correlation_id;
      // A reply that nobody waits for is late, or not ours.
      if (message !== undefined && typeof id === 'string') this.#waiting.get(id)?.(message);
    });
  }

  get over(): AbortSignal {
    return this.#scope.over;
  }

  async granted(signal: AbortSignal): Promise<void> {
    using until = anyOf(signal, this.over);
    if (!this.#sender.sendable()) await untilEvent(this.#sender, { sendable: () => undefined }, until);
  }

  async putToken(token: Token, signal: AbortSignal): Promise<TokenAnswer> {
    const messageId = randomUUID();
    using until = anyOf(signal, this.over);
    until.throwIfAborted();
    const response = await new Promise<Message>((resolve, reject) => {
      until.addEventListener('abort', () => {
        reject(until.reason as Error);
      });
      this.#waiting.set(messageId, resolve);
      this.#sender.send(putTokenRequest(messageId, token));
    }).finally(() => this.#waiting.delete(messageId));
    return readAnswer(response);
  }
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

function readAnswer({ application_properties: properties }: Message): TokenAnswer {
  const answer = properties as Record<string, unknown> | undefined;
  const status = Number(answer?.['status-code']);
  const said = answer?.['status-description'];
  const description = typeof said === 'string' && said !== '' ? said : undefined;
  if (status >= 200 && status < 300) return { status, description };
  const { code, text, hint } = meaningOf(status, description);
  throw new AgentError(code, `${text} (status ${String(status)}): ${description ?? 'no description'}`, {
    condition: `cbs:${String(status)}`,
    hint,
    retry: code === 'refused' || code === 'no-device' ? 'late' : 'soon',
  });
}

function meaningOf(status: number, description = ''): { code: ErrorCode; text: string; hint?: string } {
  if (status === 401 || status === 403) {
    return {
      code: 'refused',
      text: 'the hub refused the token',
      hint: refusalHint(description),
    };
  }
  if (status === 404) {
    return { code: 'no-device', text: 'the hub does not know this device', hint: 'check the device id' };
  }
  if (status === 429) return { code: 'try-again', text: 'the hub throttles' };
  if (status >= 500) return { code: 'try-again', text: 'the hub could not take the token' };
  return { code: 'protocol', text: 'the hub did not understand the token request' };
}

/** The hub says what it refuses in words that are for people, so nothing but the cure hangs on them. */
function refusalHint(description: string): string {
  const clock = `the clock of this machine says ${new Date().toISOString()}`;
  if (/expired|not yet valid/i.test(description)) return `${clock}: compare it with the time of the hub`;
  if (/signature/i.test(description)) {
    return 'the key is wrong, or was renewed at the hub: copy the connection string of the device again';
  }
  if (/disabled/i.test(description)) return 'enable the device at the hub';
  return `the key may be wrong or rotated, the device disabled or unknown, or the clock off (${clock})`;
}
