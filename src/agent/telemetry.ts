import { batchOf, batchOverheadBytes } from '../amqp/messages.js';
import type { Waiter } from '../amqp/sender-link.js';
import type { HubSession } from '../amqp/session.js';
import { messageFormat } from '../amqp/telemetry-link.js';
import type { Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import type { SendOutcome } from '../model.js';
import { anyOf } from '../signals.js';
import { isAboutTheMessage } from './verdict.js';

/** A message on its way out: already encoded, so that it is sent again byte for byte. */
export interface OutboxEntry {
  readonly encoded: Buffer;
  /** With how many messages, itself included, it may share a transfer; absent: as many as fit. */
  shares?: number | undefined;
}

/** Where telemetry waits: the spool of the agent, or what `send` reads from its input. */
export interface Outbox<Entry extends OutboxEntry> {
  /** The oldest entry that is not on its way, if there is one at the moment and it can share a transfer with `fellows`. */
  take(fellows?: Fellows): Entry | undefined;
  /** Resolves `true` when there is one to take, `false` when there will never be one again. */
  wait(signal: AbortSignal): Promise<boolean>;
  /** The hub has answered for this entry, so many milliseconds after it was sent. */
  settled(entry: Entry, outcome: SendOutcome, ms: number): void;
  /** These were not answered, or not for themselves, oldest first: they are taken again before all others. */
  putBack(entries: readonly Entry[]): void;
}

/** The messages that are in a transfer already, and the room that is left. */
export interface Fellows {
  count: number;
  bytesLeft: number;
}

/** Whether an entry may go out in a transfer with its fellows. */
export function sharesWith(
  fellows: Fellows | undefined,
  { encoded, shares = Infinity }: OutboxEntry,
): boolean {
  if (fellows === undefined) return true;
  return fellows.count < shares && encoded.length + batchOverheadBytes <= fellows.bytesLeft;
}

export interface PumpOptions {
  /** Messages that may be unanswered at once; the hub's credit may allow fewer transfers. */
  window: number;
  /** Whether messages that wait together go out together (format 0x80013700). */
  batches: boolean;
  /** Milliseconds after which an answer that has not come is taken to be lost, and the links with it. */
  answerWithinMs?: number;
  clock: Clock;
  /** Aborts to send no more; what is on its way is still waited for. */
  stopping: AbortSignal;
  onAccepted?: () => void;
}

/** A batch is one frame; more in a transfer saves nothing more. The hub takes 256 KB. */
const batchMessages = 200;
/** Transfers that may be unanswered: the guard lets 1 024 be answered at once. */
const mostTransfers = 1_000;
/** Of the messages that are unanswered. */
const mostBytes = 8 * 1024 * 1024;
/** So much is handed over in one turn of the event loop before it is looked whether the socket still takes it. */
const bytesPerTurn = 256 * 1024;
const defaultAnswerWithinMs = 30_000;

/**
 * Sends what is in the outbox, in order, until it has ended or `stopping` aborts, and waits for the answers.
 * Rejects when the session is over; entries without an answer have then been put back.
 */
export async function pumpTelemetry<Entry extends OutboxEntry>(
  { telemetry, over }: Pick<HubSession, 'telemetry' | 'over'>,
  outbox: Outbox<Entry>,
  options: PumpOptions,
): Promise<void> {
  const { window, batches, clock, stopping, onAccepted } = options;
  const onTheirWay: Shipment<Entry>[] = [];
  const unanswered = { count: 0, bytes: 0 };
  let shippedThisTurn = 0;
  let answered: () => void = () => undefined;
  using until = anyOf(stopping, over);

  const ship = (entries: Entry[]) => {
    const shipment = new Shipment(entries, clock.monotonic(), onAnswer);
    onTheirWay.push(shipment);
    unanswered.count += entries.length;
    unanswered.bytes += shipment.bytes;
    shippedThisTurn += shipment.bytes;
    shipTogether(telemetry, entries, shipment);
  };
  const onAnswer = (shipment: Shipment<Entry>, outcome: SendOutcome | undefined) => {
    // Without one the session is over: all that is on its way is put back together, below, in order.
    if (outcome !== undefined) {
      const { entries, bytes, sentAt } = shipment;
      while (onTheirWay[0]?.answered === true) onTheirWay.shift();
      unanswered.count -= entries.length;
      unanswered.bytes -= bytes;
      settle(outbox, entries, outcome, clock.monotonic() - sentAt);
      if (outcome.outcome === 'accepted') onAccepted?.();
    }
    answered();
  };
  const isFull = () =>
    unanswered.count >= window || unanswered.bytes >= mostBytes || onTheirWay.length >= mostTransfers;
  const nextAnswer = () =>
    new Promise<void>((resolve) => {
      answered = resolve;
    });

  const finished = new AbortController();
  void missAnswers(onTheirWay, telemetry, options, finished.signal);
  try {
    while (!until.aborted) {
      if (isFull()) await nextAnswer();
      else if (telemetry.credit <= 0) await telemetry.moreCredit(until);
      else if (shippedThisTurn >= bytesPerTurn) {
        // What waits in the socket's queue would only be late there, and all of it lost with the connection.
        await nextTurn();
        shippedThisTurn = 0;
        await telemetry.drained(until);
      } else {
        const most = batches ? Math.min(batchMessages, window - unanswered.count) : 1;
        const entries = takeTogether(outbox, { count: most, bytes: telemetry.frameBytes });
        if (entries.length > 0) ship(entries);
        else if (!(await outbox.wait(until))) break;
      }
    }
  } catch (error) {
    if (!stopping.aborted || over.aborted) throw over.aborted ? over.reason : error;
  } finally {
    while (onTheirWay.length > 0 && !over.aborted) await nextAnswer();
    finished.abort();
    if (over.aborted)
      outbox.putBack(onTheirWay.flatMap(({ entries, answered }) => (answered ? [] : entries)));
  }
  over.throwIfAborted();
}

/** What one transfer carries. */
class Shipment<Entry extends OutboxEntry> implements Waiter {
  readonly entries: readonly Entry[];
  /** Of its messages. */
  readonly bytes: number;
  /** By the monotonic clock. */
  readonly sentAt: number;
  answered = false;
  readonly #onAnswer: (shipment: this, outcome: SendOutcome | undefined) => void;

  constructor(
    entries: readonly Entry[],
    sentAt: number,
    onAnswer: (shipment: Shipment<Entry>, outcome: SendOutcome | undefined) => void,
  ) {
    let bytes = 0;
    for (const { encoded } of entries) bytes += encoded.length;
    this.entries = entries;
    this.bytes = bytes;
    this.sentAt = sentAt;
    this.#onAnswer = onAnswer;
  }

  settled(outcome: SendOutcome): void {
    this.answered = true;
    this.#onAnswer(this, outcome);
  }

  lost(): void {
    this.#onAnswer(this, undefined);
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** The first, whatever its size, and those that fit into a transfer with it. */
function takeTogether<Entry extends OutboxEntry>(
  outbox: Outbox<Entry>,
  most: { count: number; bytes: number },
): Entry[] {
  const first = outbox.take();
  if (first === undefined) return [];
  const entries = [first];
  let bytesLeft = most.bytes - first.encoded.length - batchOverheadBytes;
  let allowed = Math.min(most.count, first.shares ?? Infinity);
  while (entries.length < allowed) {
    const next = outbox.take({ count: entries.length, bytesLeft });
    if (next === undefined) break;
    entries.push(next);
    bytesLeft -= next.encoded.length + batchOverheadBytes;
    allowed = Math.min(allowed, next.shares ?? Infinity);
  }
  return entries;
}

function shipTogether(
  telemetry: HubSession['telemetry'],
  entries: readonly OutboxEntry[],
  waiter: Waiter,
): void {
  const [first] = entries;
  if (first !== undefined && entries.length === 1) {
    telemetry.ship(first.encoded, messageFormat.single, waiter);
  } else {
    telemetry.ship(batchOf(entries.map(({ encoded }) => encoded)), messageFormat.batch, waiter);
  }
}

/**
 * The hub answers for a batch as a whole. One that it refused for what is in it goes out again in halves, until the
 * message that it means is alone.
 */
function settle<Entry extends OutboxEntry>(
  outbox: Outbox<Entry>,
  entries: readonly Entry[],
  outcome: SendOutcome,
  ms: number,
): void {
  if (entries.length === 1 || !isAboutTheMessage(outcome)) {
    for (const entry of entries) outbox.settled(entry, outcome, ms);
    return;
  }
  const half = Math.ceil(entries.length / 2);
  for (const entry of entries) entry.shares = half;
  outbox.putBack(entries);
}

/** Gives the links up when the answer to something is overdue: one that was lost on its way never comes. */
async function missAnswers(
  onTheirWay: readonly { sentAt: number }[],
  telemetry: HubSession['telemetry'],
  { clock, answerWithinMs = defaultAnswerWithinMs }: PumpOptions,
  signal: AbortSignal,
): Promise<void> {
  try {
    for (;;) {
      await clock.sleep(answerWithinMs / 4, signal);
      const [oldest] = onTheirWay;
      if (oldest === undefined || clock.monotonic() - oldest.sentAt < answerWithinMs) continue;
      telemetry.fail(
        new AgentError(
          'unavailable',
          `the hub did not answer for a message within ${answerWithinMs / 1000} s`,
        ),
      );
    }
  } catch {
    // Aborted: the pump is finished.
  }
}
