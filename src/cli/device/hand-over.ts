import { once } from 'node:events';
import type { ClientRequest, IncomingMessage } from 'node:http';

import type { TelemetryAnswer } from '../../daemon/control-answer.js';
import { AgentError, errorText } from '../../errors.js';
import { readLines } from '../../lines.js';
import type { TelemetryMessage } from '../../model.js';
import { formatDuration } from '../../units.js';
import { exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import type { InputItem } from '../message-input.js';
import { messageLine } from '../output-message.js';
import { ExitTally, type Sent } from '../output-sent.js';
import { openRequest, type RunningAgent } from './agent-client.js';
import { finishWithinMs, Patience } from './patience.js';

export interface HandOverJob {
  messages: AsyncIterable<Item>;
  /** What is waited for: that a message is on disk, or the answer of the hub. */
  wait: 'disk' | 'hub';
  /** Messages without an answer at once. */
  inflight: number;
  /** Whether a message that failed ends it. */
  onError: 'stop' | 'continue';
  /** How long the hub may take for each. */
  timeoutMs: number;
  print: (sent: readonly Sent[]) => Promise<void>;
}

type Item = InputItem<TelemetryMessage>;

/** What the agent may take longer than the hub, before it counts as hanging. */
const extraMs = 5_000;
const longestAnswerBytes = 64 * 1024;

/**
 * Gives all messages to the agent that runs for this device, in order, and prints what became of each; returns the
 * exit code. A connection of our own would make the hub end the agent's.
 */
export async function handOver(io: Io, { socket, status }: RunningAgent, job: HandOverJob): Promise<number> {
  const timeout = Number.isFinite(job.timeoutMs) ? formatDuration(job.timeoutMs) : '0s';
  const [sending, response] = openRequest(
    socket,
    'POST',
    `/v1/telemetry?wait=${job.wait}&timeout=${timeout}`,
    {
      'content-type': 'application/x-ndjson',
    },
  );
  const patience = new Patience(job.timeoutMs + extraMs);
  const giveUp = () => {
    sending.destroy(new AgentError('unavailable', 'it did not answer in time'));
  };
  const finish = () => {
    patience.shorten(finishWithinMs);
  };
  patience.over.addEventListener('abort', giveUp);
  io.now.addEventListener('abort', giveUp);
  io.stop.addEventListener('abort', finish);
  io.stdout.readerGone.addEventListener('abort', finish);

  const handing = new Handing(job, patience);
  try {
    sending.flushHeaders();
    await Promise.all([handing.write(sending), handing.read(await response)]);
  } catch (error) {
    io.stop.throwIfAborted();
    if (handing.unanswered === 0 && error instanceof AgentError) throw error;
    const count = String(handing.unanswered);
    throw new AgentError(
      'unavailable',
      `the agent (process ${String(status.pid)}) ended the connection: ${errorText(error)}`,
      {
        hint: `${count} ${count === '1' ? 'message has' : 'messages have'} no answer; what the agent had on disk it will send`,
        cause: error,
      },
    );
  } finally {
    patience.end();
    sending.destroy();
  }
  io.stop.throwIfAborted();
  return handing.exitCode;
}

/** One message that was read, and what became of it once that is known. */
interface Entry {
  item: Item;
  sent: Sent | undefined;
}

class Handing {
  readonly #job: HandOverJob;
  readonly #patience: Patience;
  readonly #tally = new ExitTally();
  /** Read and not printed, in order. */
  readonly #open: Entry[] = [];
  /** Of which the agent has not answered for so many. */
  #unanswered = 0;
  #wake: () => void = () => undefined;

  constructor(job: HandOverJob, patience: Patience) {
    this.#job = job;
    this.#patience = patience;
  }

  get unanswered(): number {
    return this.#unanswered;
  }

  get exitCode(): number {
    return this.#tally.exitCode;
  }

  /** Writes as fast as the agent reads, and no more than may be unanswered. */
  async write(sending: ClientRequest): Promise<void> {
    for await (const item of this.#job.messages) {
      if (item.message === undefined) {
        this.#open.push({ item, sent: { line: item.line, error: item.error } });
        await this.#printDone();
      } else {
        this.#open.push({ item, sent: undefined });
        this.#unanswered++;
        this.#patience.begin();
        const line = `${messageLine(item.message, { exact: true }).json()}\n`;
        if (!sending.write(line)) await Promise.race([once(sending, 'drain'), once(sending, 'close')]);
      }
      while (this.#unanswered >= this.#job.inflight && !sending.destroyed) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          sending.once('close', resolve);
        });
      }
      if (sending.destroyed || this.#hasToStop()) break;
    }
    sending.end();
  }

  async read(response: IncomingMessage): Promise<void> {
    if (response.statusCode !== 200) throw await refusal(response);
    for await (const { bytes } of readLines(response, longestAnswerBytes)) {
      const answer = JSON.parse(bytes.toString()) as TelemetryAnswer;
      const entry = this.#open.find(({ sent }) => sent === undefined);
      if (entry === undefined) throw new AgentError('protocol', 'it answered for more than it was given');
      entry.sent = sentOf(entry.item, answer);
      this.#unanswered--;
      this.#patience.answered(this.#unanswered);
      this.#wake();
      await this.#printDone();
    }
    if (this.#unanswered > 0) throw new AgentError('unavailable', 'it stopped');
  }

  async #printDone(): Promise<void> {
    for (let first = this.#open[0]; first?.sent !== undefined; first = this.#open[0]) {
      this.#open.shift();
      this.#tally.add(first.sent);
      await this.#job.print([first.sent]);
    }
  }

  #hasToStop(): boolean {
    return this.#job.onError === 'stop' && this.#tally.exitCode !== exitCodes.ok;
  }
}

function sentOf({ line, message }: Item, answer: TelemetryAnswer): Sent {
  const { outcome, ms = 0, condition, description, error, code, hint } = answer;
  const which = { line, messageId: message?.messageId };
  switch (outcome) {
    case 'accepted':
      return { ...which, result: { outcome }, ms };
    case 'rejected':
      return { ...which, result: { outcome, condition, description }, ms };
    case 'queued':
      if (error === undefined) return { ...which, result: { outcome }, ms };
      break;
    case 'failed':
      break;
  }
  return { ...which, error: new AgentError(code ?? 'bug', error ?? 'unknown', { condition, hint }) };
}

/** It says why as a whole: too many clients, or it is stopping. */
async function refusal(response: IncomingMessage): Promise<AgentError> {
  let text = '';
  for await (const part of response) text += String(part);
  const { error, code, hint } = JSON.parse(text) as TelemetryAnswer;
  return new AgentError(code ?? 'unavailable', `the agent refuses: ${error ?? text}`, { hint });
}
