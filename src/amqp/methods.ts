import '../no-debug.js';

import rhea, { type EventContext, type Message } from 'rhea';

import { AgentError } from '../errors.js';
import type { Log } from '../log.js';
import type { DeviceId, SendOutcome } from '../model.js';
import type { Channel } from './channel.js';
import { unreadableReason } from './guard.js';
import { asId, bodyOf } from './messages.js';
import type { SessionScope } from './scope.js';
import { SenderLink } from './sender-link.js';

/** A direct method that was invoked: its caller waits for one answer. */
export interface MethodRequest extends DeviceId {
  /** Ties the answer to the request; a UUID. */
  readonly requestId: string;
  readonly method: string;
  /** JSON text; `null` when the caller sent nothing. */
  readonly payload: Buffer;
  /**
   * Answers with a status, a 32-bit integer in the manner of HTTP, and a payload that is JSON text. To be called once.
   * Resolves with what the hub made of it; rejects when the channel is lost before.
   */
  respond(status: number, payload: Buffer): Promise<SendOutcome>;
}

/** Requests that may be without an answer at once; the hub keeps the others. One has up to 128 KB. */
const requestWindow = 32;
/** The two links at `/devices/{id}/methods/devicebound`. Nothing arrives before `serve` is called. */
export class MethodLink {
  readonly #channel: Channel;
  readonly #identity: DeviceId;
  readonly #log: Log;
  readonly #answerWithinMs: number;
  readonly #answers: SenderLink;
  #onRequest: ((request: MethodRequest) => void) | undefined;
  #unanswered = 0;
  #whenAllAnswered: (() => void)[] = [];

  constructor(
    channel: Channel,
    { identity, log, answerWithinMs }: { identity: DeviceId; log: Log; answerWithinMs: number },
  ) {
    this.#channel = channel;
    this.#identity = identity;
    this.#log = log;
    this.#answerWithinMs = answerWithinMs;
    this.#answers = new SenderLink(channel.sender.name, channel.scope);
    channel.receiver.on('message', ({ message }: EventContext) => {
      if (message !== undefined) this.#receive(message);
    });
  }

  /** Aborted when the channel is over; the reason is the `AgentError` that says why. */
  get over(): AbortSignal {
    return this.#scope.over;
  }

  /** Names who answers from now on. Every request has to be answered: it holds one of the hub's credits. */
  serve(onRequest: (request: MethodRequest) => void): void {
    const first = this.#onRequest === undefined;
    this.#onRequest = onRequest;
    if (first) this.#grant(requestWindow);
  }

  /** Resolves when every request that has arrived is answered. */
  async allAnswered(): Promise<void> {
    if (this.#unanswered === 0) return;
    await new Promise<void>((resolve) => this.#whenAllAnswered.push(resolve));
  }

  get #scope(): SessionScope {
    return this.#channel.scope;
  }

  #receive(message: Message): void {
    const { correlation_id: correlation } = message;
    const requestId = asId(correlation);
    if (requestId === undefined) {
      const why = unreadableReason(message) ?? 'it has no correlation id';
      this.#log.warn('a method request that cannot be answered was dropped', { why });
      this.#grant(1);
      return;
    }
    this.#unanswered++;
    const respond = (status: number, payload: Buffer) =>
      this.#respond(answerMessage(correlation, status, payload));
    const method = methodOf(message);
    if (method === undefined) {
      this.#log.warn('a request that names no method was refused', { request: requestId });
      respond(400, Buffer.from('{"message":"the request names no method"}')).catch((error: unknown) => {
        this.#log.debug('its caller could not be told', { error });
      });
      return;
    }
    const body = bodyOf(message);
    const payload = body.length === 0 ? noPayload : body;
    this.#onRequest?.({ ...this.#identity, requestId, method, payload, respond });
  }

  async #respond(answer: Buffer): Promise<SendOutcome> {
    const overdue = setTimeout(() => {
      const within = `within ${this.#answerWithinMs / 1000} s`;
      this.#scope.fail(
        new AgentError('unavailable', `the hub did not take the answer of a method ${within}`),
      );
    }, this.#answerWithinMs);
    try {
      await this.#answers.moreCredit(this.over);
      return await this.#answers.send(answer);
    } finally {
      clearTimeout(overdue);
      this.#unanswered--;
      if (this.#unanswered === 0) for (const resolve of this.#whenAllAnswered.splice(0)) resolve();
      this.#grant(1);
    }
  }

  #grant(credit: number): void {
    if (!this.over.aborted) this.#channel.receiver.add_credit(credit);
  }
}

const noPayload = Buffer.from('null');

function methodOf({ application_properties: properties }: Message): string | undefined {
  const name: unknown = (properties as Record<string, unknown> | undefined)?.['IoThub-methodname'];
  return typeof name === 'string' && name !== '' ? name : undefined;
}

/** The correlation id goes back as it came, in its AMQP type: the hub sends a uuid, IoT Edge a text. */
function answerMessage(correlation: Message['correlation_id'], status: number, payload: Buffer): Buffer {
  const body: unknown = rhea.message.data_section(payload);
  const application_properties = { 'IoThub-status': rhea.types.wrap_int(status) };
  return rhea.message.encode({ correlation_id: correlation, application_properties, body });
}
