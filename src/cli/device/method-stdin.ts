import type { Readable } from 'node:stream';

import type { HandlerEvent, MethodEvent } from '../../handlers/contract.js';
import { defaultTimeoutMs, type Answer } from '../../handlers/handler.js';
import { parseJson } from '../../handlers/json.js';
import { matches, type Match } from '../../handlers/route.js';
import type { Log } from '../../log.js';
import { memberText } from '../../json-member.js';
import { readLines, type Line } from '../../lines.js';
import type { MethodAnswers } from './method-answers.js';

export interface StdinOptions {
  match: Match;
  /** Of answers that name none. */
  status: number;
  log: Log;
  onCall: (call: MethodEvent) => void;
  /** The input has ended. */
  onEnd: () => void;
}

/** What the hub takes as a payload, and some room for the rest of the line. */
const longestLineBytes = 160 * 1024;

/**
 * Answers that a person or another program writes, one line of JSON each:
 *
 *     {"payload":{"ok":true},"status":200,"requestId":"…"}
 *
 * Without a request id a line answers the oldest call that is open. A line is read only when a call is open, so that
 * answers may stand ready before.
 */
export class AnswersOnStdin implements MethodAnswers {
  readonly #options: StdinOptions;
  readonly #lines: AsyncGenerator<Line>;
  /** By request id, the oldest first. */
  readonly #open = new Map<string, (answer: Answer) => void>();
  #reading = false;
  #ended = false;

  constructor(stdin: Readable, options: StdinOptions) {
    this.#options = options;
    this.#lines = readLines(stdin, longestLineBytes);
  }

  async answer(event: HandlerEvent): Promise<Answer | undefined> {
    if (event.event !== 'method' || !matches(this.#options.match, event)) return undefined;
    this.#options.onCall(event);
    if (this.#ended) return noAnswer(503, 'standard input has ended');
    return await this.#answerTo(event);
  }

  /** Nobody can be made to write: what is open gets no answer of its own. */
  drain(): Promise<void> {
    this.#endAll('the agent is stopping');
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.drain();
  }

  async #answerTo({ requestId = '' }: MethodEvent): Promise<Answer> {
    const answered = new Promise<Answer>((resolve) => this.#open.set(requestId, resolve));
    // After that its caller waits no more, and the next line is for the next call.
    const late = setTimeout(() => {
      this.#settle(requestId, noAnswer(504, 'no answer on standard input'));
    }, defaultTimeoutMs.method);
    void this.#read();
    try {
      return await answered;
    } finally {
      clearTimeout(late);
    }
  }

  async #read(): Promise<void> {
    if (this.#reading) return;
    this.#reading = true;
    while (this.#open.size > 0) {
      const line = await this.#nextLine();
      if (line === undefined) {
        this.#ended = true;
        this.#endAll('standard input has ended');
        this.#options.onEnd();
        break;
      }
      this.#take(line);
    }
    this.#reading = false;
  }

  /** Undefined when there is none any more. */
  async #nextLine(): Promise<Line | undefined> {
    try {
      const next = await this.#lines.next();
      return next.done === true ? undefined : next.value;
    } catch (error) {
      this.#options.log.error('standard input cannot be read', { error });
      return undefined;
    }
  }

  #take({ number, bytes, tooLong }: Line): void {
    if (bytes.length === 0 && !tooLong) return;
    const read = tooLong ? { why: 'it is too long' } : answerIn(bytes, this.#options.status);
    if ('why' in read) {
      const hint = 'write {"payload":…}, and if need be "status" and "requestId"';
      this.#options.log.warn('a line is no answer', { line: number, why: read.why, hint });
      return;
    }
    const [oldest = ''] = this.#open.keys();
    const requestId = read.requestId ?? oldest;
    if (!this.#settle(requestId, read.answer)) {
      this.#options.log.warn('a line answers no call that is open', { line: number, requestId });
    }
  }

  #settle(requestId: string, answer: Answer): boolean {
    const resolve = this.#open.get(requestId);
    this.#open.delete(requestId);
    resolve?.(answer);
    return resolve !== undefined;
  }

  #endAll(why: string): void {
    for (const requestId of [...this.#open.keys()]) this.#settle(requestId, noAnswer(503, why));
  }
}

function answerIn(
  bytes: Buffer,
  usualStatus: number,
): { answer: Answer; requestId: string | undefined } | { why: string } {
  const parsed = parseJson(bytes);
  if (!parsed.ok) return { why: parsed.why };
  const { value } = parsed;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { why: 'it is no object' };
  const { payload: _, status = usualStatus, requestId, ...others } = value as Record<string, unknown>;
  const [other] = Object.keys(others);
  if (other !== undefined) return { why: `it has the key "${other}"` };
  if (typeof status !== 'number' || (status | 0) !== status) return { why: 'its status is no whole number' };
  if (requestId !== undefined && typeof requestId !== 'string') return { why: 'its requestId is no text' };
  const reply = Buffer.from(memberText(bytes.toString('utf8'), 'payload') ?? 'null');
  return { answer: { outcome: 'accept', status, reply, decidedBy: 'handler' }, requestId };
}

function noAnswer(status: number, reason: string): Answer {
  return { outcome: 'release', status, reason, decidedBy: 'handler' };
}
