import type { HubSession } from '../amqp/session.js';
import type { SendOutcome } from '../model.js';

/** A message on its way out: already encoded, so that it is sent again byte for byte. */
export interface OutboxEntry {
  readonly encoded: Buffer;
}

/** Where telemetry waits: the spool of the agent, or what `send` reads from its input. */
export interface Outbox<Entry extends OutboxEntry> {
  /** The oldest entry that is not on its way; undefined when there is none at the moment. */
  take(): Entry | undefined;
  /** Resolves `true` when there is one to take, `false` when there will never be one again. */
  wait(signal: AbortSignal): Promise<boolean>;
  /** The hub has answered for this entry. */
  settled(entry: Entry, outcome: SendOutcome): void;
  /** The connection was lost before the hub answered for these, oldest first: they are taken again before all others. */
  putBack(entries: readonly Entry[]): void;
}

export interface PumpOptions {
  /** Messages that may be unanswered at once; the hub's credit may allow fewer. */
  window: number;
  /** Aborts to send no more; what is on its way is still waited for. */
  stopping: AbortSignal;
  onAccepted?: () => void;
}

/**
 * Sends what is in the outbox, in order, until it has ended or `stopping` aborts, and waits for the answers.
 * Rejects when the session is over; entries without an answer have then been put back.
 */
export async function pumpTelemetry<Entry extends OutboxEntry>(
  { telemetry, over }: Pick<HubSession, 'telemetry' | 'over'>,
  outbox: Outbox<Entry>,
  { window, stopping, onAccepted }: PumpOptions,
): Promise<void> {
  const onTheirWay = new Set<Entry>();
  let answered: () => void = () => undefined;
  const until = AbortSignal.any([stopping, over]);

  const send = (entry: Entry) => {
    onTheirWay.add(entry);
    telemetry.send(entry.encoded).then(
      (outcome) => {
        onTheirWay.delete(entry);
        outbox.settled(entry, outcome);
        if (outcome.outcome === 'accepted') onAccepted?.();
        answered();
      },
      () => {
        // The session is over: all that is on its way is put back together, below, in order.
        answered();
      },
    );
  };
  const nextAnswer = () =>
    new Promise<void>((resolve) => {
      answered = resolve;
    });

  try {
    while (!until.aborted) {
      if (onTheirWay.size >= window) await nextAnswer();
      else if (telemetry.credit <= 0) await telemetry.moreCredit(until);
      else {
        const entry = outbox.take();
        if (entry !== undefined) send(entry);
        else if (!(await outbox.wait(until))) break;
      }
    }
  } catch (error) {
    if (!stopping.aborted || over.aborted) throw over.aborted ? over.reason : error;
  } finally {
    while (onTheirWay.size > 0 && !over.aborted) await nextAnswer();
    if (over.aborted) outbox.putBack([...onTheirWay]);
  }
  over.throwIfAborted();
}
