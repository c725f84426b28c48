import { runAgent } from '../../agent/run.js';
import { StreamOutbox, type StreamResult } from '../../agent/stream-outbox.js';
import { pumpTelemetry } from '../../agent/telemetry.js';
import { renewTokensDuring } from '../../agent/tokens.js';
import { AgentError } from '../../errors.js';
import type { TelemetryMessage } from '../../model.js';
import { exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import type { InputItem } from '../message-input.js';
import { ExitTally, type Sent } from '../output-sent.js';
import type { DeviceHub } from './hub.js';
import { finishWithinMs, Patience } from './patience.js';

export interface SendJob {
  /** As they become ready together. */
  messages: AsyncIterable<Iterable<Item>>;
  /** Messages on their way at once; no more are read while so many have no answer. */
  inflight: number;
  /** Whether messages that wait together share a transfer. */
  batches: boolean;
  /** Whether a message that was not accepted ends the sending. */
  onError: 'stop' | 'continue';
  /** Give up when an answer has been outstanding this long. */
  timeoutMs: number;
  /** Prints what became of messages; what is answered meanwhile is printed next, together. */
  print: (sent: readonly Sent[]) => Promise<void>;
}

type Item = InputItem<TelemetryMessage>;

/**
 * Sends all messages in order and prints what the hub said of each; returns the exit code. The first connection must
 * come up; one that is lost later is opened again, and what has no answer is sent again with the same message id.
 */
export async function sendTelemetry(io: Io, hub: DeviceHub, job: SendJob): Promise<number> {
  const tally = new ExitTally();
  const patience = new Patience(job.timeoutMs);
  const results = new ResultPrinter(job.print);

  const outbox = new StreamOutbox(job.messages, {
    capacity: job.inflight,
    encode: ({ message }) => {
      if (message === undefined) return undefined;
      patience.begin();
      return hub.encode(message);
    },
    onResults: (answered) => {
      patience.answered(outbox.unanswered);
      const sent = answered.map(sentOf);
      for (const one of sent) tally.add(one);
      if (job.onError === 'stop' && tally.exitCode !== exitCodes.ok) outbox.stop();
      results.add(sent);
    },
  });

  const finish = () => {
    outbox.stop();
    patience.shorten(finishWithinMs);
  };
  io.stop.addEventListener('abort', finish);
  io.stdout.readerGone.addEventListener('abort', finish);

  let online = false;
  const neverOnline = (): boolean => !online;
  const abandon = AbortSignal.any([io.now, patience.over]);
  try {
    await runAgent({
      open: (signal) => hub.open(['telemetry'], signal),
      work: async (session, { stopping, healthy }) => {
        online = true;
        await renewTokensDuring(session, hub, () =>
          pumpTelemetry(session, outbox, {
            window: job.inflight,
            batches: job.batches,
            // How long to wait is the user's to say, and `Patience` keeps to it.
            answerWithinMs: Infinity,
            clock: hub.clock,
            stopping,
            onAccepted: healthy,
          }),
        );
      },
      stopping: abandon,
      abandon,
      givesUp: neverOnline,
      clock: hub.clock,
      log: hub.log,
    });
    if (outbox.unanswered > 0 && !io.now.aborted) {
      const withinMs = io.stop.aborted ? Math.min(finishWithinMs, job.timeoutMs) : job.timeoutMs;
      throw neverOnline() ? notOnline(hub, withinMs) : noAnswer(outbox.unanswered, withinMs);
    }
  } finally {
    patience.end();
    await results.flushed();
  }
  io.stop.throwIfAborted();
  return tally.exitCode;
}

/** Prints what is answered together, and meanwhile, with one write: one for each line takes longer than its sending. */
class ResultPrinter {
  readonly #print: SendJob['print'];
  #unprinted: readonly Sent[] = [];
  /** Of all that was added so far; rejected for good when it cannot be printed. */
  #printed: Promise<void> | undefined;

  constructor(print: SendJob['print']) {
    this.#print = print;
  }

  add(sent: readonly Sent[]): void {
    this.#unprinted = this.#unprinted.length === 0 ? sent : [...this.#unprinted, ...sent];
    if (this.#printed !== undefined) return;
    this.#printed = this.#printAll();
    // Thrown where it is awaited.
    this.#printed.catch(() => undefined);
  }

  /** Resolves when all is printed. Rejects with why it cannot be. */
  async flushed(): Promise<void> {
    await this.#printed;
  }

  async #printAll(): Promise<void> {
    do {
      const sent = this.#unprinted;
      this.#unprinted = [];
      await this.#print(sent);
    } while (this.#unprinted.length > 0);
    this.#printed = undefined;
  }
}

function sentOf({ item: { line, message, error }, answer }: StreamResult<Item>): Sent {
  if (answer !== undefined)
    return { line, messageId: message?.messageId, result: answer.outcome, ms: answer.ms };
  return { line, error: error ?? new AgentError('bug', 'a message was not sent') };
}

function noAnswer(count: number, withinMs: number): AgentError {
  const messages = count === 1 ? 'one message' : `${String(count)} messages`;
  return new AgentError('unavailable', `no answer to ${messages} within ${String(withinMs / 1000)} s`, {
    hint: 'the hub may have taken them: sent again, they carry the same message ids only if you give them',
  });
}

/** Nothing was sent, so nothing can have been taken. */
function notOnline({ endpoint: { host, port } }: DeviceHub, withinMs: number): AgentError {
  const hub = `${host}:${String(port)}`;
  return new AgentError('unavailable', `${hub} did not let us in within ${String(withinMs / 1000)} s`, {
    hint: 'it says nothing, or a firewall is in between: "iothub-device check" looks at each step of the way',
  });
}
