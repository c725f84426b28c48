import '../no-debug.js';

import { randomUUID } from 'node:crypto';

import rhea, { type EventContext, type Message } from 'rhea';

import { AgentError, type AgentErrorOptions, type ErrorCode } from '../errors.js';
import { anyOf } from '../signals.js';
import type { Channel } from './channel.js';
import { hubMessage } from './errors.js';
import { unreadableReason } from './guard.js';
import { asCount, asId, bodyOf } from './messages.js';
import type { SessionScope } from './scope.js';

/** The resources of a twin that requests name; a read names none. */
const resources = {
  reported: '/properties/reported',
  desired: '/notifications/twin/properties/desired',
} as const;

/**
 * The two links at `/devices/{id}/twin`. Requests say what they are in the annotations `operation` and `resource`;
 * an answer carries the correlation id of its request, a notification none. Bodies are JSON text. Source: the Node
 * and C SDKs.
 */
export class TwinLink {
  readonly #channel: Channel;
  readonly #answerWithinMs: number;
  readonly #waiting = new Map<string, (answer: Message) => void>();
  #onDesired: ((patch: Buffer | undefined) => void) | undefined;

  constructor(channel: Channel, { answerWithinMs }: { answerWithinMs: number }) {
    this.#channel = channel;
    this.#answerWithinMs = answerWithinMs;
    channel.receiver.on('message', ({ message }: EventContext) => {
      if (message !== undefined) this.#receive(message);
    });
  }

  /** Aborted when the channel is over; the reason is the `AgentError` that says why. */
  get over(): AbortSignal {
    return this.#scope.over;
  }

  /** Reads the twin: `{"desired":{…,"$version":1},"reported":{…,"$version":1}}`. */
  async get(signal: AbortSignal): Promise<Buffer> {
    return bodyOf(await this.#ask({ operation: 'GET' }, signal));
  }

  /**
   * Merges a patch, a JSON object, into the reported properties; resolves with their new `$version`, if the hub named
   * it. Errors: `data` when the hub refuses the patch (no object, more than 32 KB in all, a forbidden key).
   */
  async report(patch: string, signal: AbortSignal): Promise<number | undefined> {
    const answer = await this.#ask({ operation: 'PATCH', resource: resources.reported, body: patch }, signal);
    return asCount(annotationsOf(answer)?.['version']);
  }

  /**
   * From now on the hub tells about every change of the desired properties: the patch with the `$version` that it
   * led to; undefined when it cannot be read. Changes from before are not told.
   */
  async watchDesired(onDesired: (patch: Buffer | undefined) => void, signal: AbortSignal): Promise<void> {
    this.#onDesired = onDesired;
    await this.#ask({ operation: 'PUT', resource: resources.desired }, signal);
  }

  async unwatchDesired(signal: AbortSignal): Promise<void> {
    await this.#ask({ operation: 'DELETE', resource: resources.desired }, signal);
    this.#onDesired = undefined;
  }

  get #scope(): SessionScope {
    return this.#channel.scope;
  }

  async #ask(request: TwinRequest, signal: AbortSignal): Promise<Message> {
    using until = anyOf(signal, this.over);
    until.throwIfAborted();
    const id = randomUUID();
    const overdue = setTimeout(() => {
      const within = `within ${this.#answerWithinMs / 1000} s`;
      this.#scope.fail(new AgentError('unavailable', `the hub did not answer for the twin ${within}`));
    }, this.#answerWithinMs);
    let stop: () => void = () => undefined;
    try {
      const answer = await new Promise<Message>((resolve, reject) => {
        stop = () => {
          reject(until.reason as Error);
        };
        until.addEventListener('abort', stop);
        this.#waiting.set(id, resolve);
        this.#channel.sender.send(requestMessage(id, request));
      });
      checkAnswer(answer);
      return answer;
    } finally {
      clearTimeout(overdue);
      until.removeEventListener('abort', stop);
      this.#waiting.delete(id);
    }
  }

  #receive(message: Message): void {
    const id = asId(message.correlation_id);
    // An answer that nobody waits for is late, or not ours.
    if (id !== undefined) this.#waiting.get(id)?.(message);
    else this.#onDesired?.(unreadableReason(message) === undefined ? bodyOf(message) : undefined);
  }
}

interface TwinRequest {
  operation: 'GET' | 'PATCH' | 'PUT' | 'DELETE';
  resource?: string;
  /** JSON text. */
  body?: string;
}

/** Without anything to say the body is one blank, as the Node and C SDKs have it. */
function requestMessage(id: string, { operation, resource, body: text = ' ' }: TwinRequest): Message {
  const body: unknown = rhea.message.data_section(Buffer.from(text));
  return {
    correlation_id: id,
    message_annotations: resource === undefined ? { operation } : { operation, resource },
    body,
  };
}

/** The status is an annotation; the Node SDK takes an answer without any for success. */
function checkAnswer(answer: Message): void {
  const status = annotationsOf(answer)?.['status'];
  if (typeof status !== 'number' || (status >= 200 && status < 300)) return;
  const said = hubMessage(bodyOf(answer).toString('utf8'));
  const { code, text, ...options } = meaningOf(status);
  throw new AgentError(code, `${text} (status ${String(status)})${said === undefined ? '' : `: ${said}`}`, {
    condition: `twin:${String(status)}`,
    ...options,
  });
}

function meaningOf(
  status: number,
): { code: ErrorCode; text: string } & Pick<AgentErrorOptions, 'hint' | 'retry'> {
  if (status === 401 || status === 403) {
    return { code: 'refused', text: 'the hub does not let this device at its twin' };
  }
  if (status === 404) {
    return { code: 'no-device', text: 'the hub does not know this device', hint: 'check the device id' };
  }
  if (status === 408) return { code: 'try-again', text: 'the hub ran out of time', retry: 'soon' };
  if (status === 429) return { code: 'try-again', text: 'the hub throttles twins' };
  if (status >= 500) {
    return { code: 'try-again', text: 'the hub could not work on the twin', retry: 'soon' };
  }
  return {
    code: 'data',
    text: 'the hub refused the twin request',
    hint: 'reported properties may have 32 KB, ten levels, and no "." "$" or blank in a name',
    retry: 'late',
  };
}

function annotationsOf({ message_annotations: annotations }: Message): Record<string, unknown> | undefined {
  return annotations;
}
