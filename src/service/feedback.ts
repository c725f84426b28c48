import type { Message } from 'rhea';

import { bodyOf } from '../amqp/messages.js';
import { AgentError } from '../errors.js';
import { anyOf } from '../signals.js';
import type { ServiceClient, ServiceOptions } from './client.js';
import { follow } from './follow.js';

/** What became of a command, as the hub tells its senders ("Send cloud-to-device messages", feedback). */
export interface FeedbackRecord {
  originalMessageId: string;
  /** When the outcome was reached, RFC 3339. */
  enqueuedTimeUtc: string;
  statusCode: 'Success' | 'Expired' | 'DeliveryCountExceeded' | 'Rejected' | 'Purged';
  description: string;
  deviceId: string;
  deviceGenerationId: string;
}

/** Feedback as it arrives: up to 64 records in one message, which is settled as a whole. */
export interface FeedbackBatch {
  records: FeedbackRecord[];
  settle: (as: 'accept' | 'release') => void;
}

/** Opens the receiver of `/messages/serviceBound/feedback`. The hub locks a batch for 60 s from its delivery. */
export async function openFeedback(
  client: ServiceClient,
  { credit, onBatch }: { credit: number; onBatch: (batch: FeedbackBatch) => void },
  signal: AbortSignal,
): Promise<void> {
  const receiver = await client.asking.openReceiver(
    'feedback receiver',
    {
      source: '/messages/serviceBound/feedback',
      credit,
      onMessage: (message, settle) => {
        onBatch({
          records: parseFeedback(message),
          settle: (as) => {
            settle(as);
            if (as === 'accept') receiver.addCredit(1);
            // With credit at hand we would be given it again, and whoever it is for never.
            else
              setTimeout(() => {
                receiver.addCredit(1);
              }, othersTurnMs).unref();
          },
        });
      },
    },
    signal,
  );
}

/**
 * Feedback for as long as there is someone to read it, over lost connections; batches come again that were not settled.
 * `onOnline` is called once, when it can come. Ends by an error that trying again would not mend, or with the
 * signal's reason.
 *
 *     for await (const { records, settle } of followFeedback(hub, signal)) { …; settle('accept'); }
 */
export async function* followFeedback(
  hub: ServiceOptions,
  signal: AbortSignal,
  onOnline?: () => void,
): AsyncGenerator<FeedbackBatch, never, undefined> {
  const open = (client: ServiceClient, onBatch: (batch: FeedbackBatch) => void, until: AbortSignal) =>
    // One at a time: the lock of the next would run while this one is looked at.
    openFeedback(client, { credit: 1, onBatch }, until);
  return yield* follow(hub, open, signal, onOnline);
}

/** How long a batch that was given back is left to other receivers. */
const othersTurnMs = 5_000;

/**
 * Waits for the feedback of one command. All who read feedback share one queue, so a batch that holds anyone else's
 * records is given back, a little later so that it does not come round at once.
 */
export async function openFeedbackWait(client: ServiceClient, signal: AbortSignal): Promise<FeedbackWait> {
  const arrived = new Map<string, FeedbackRecord>();
  const waiting = new Map<string, (record: FeedbackRecord) => void>();
  const wanted = new Set<string>();
  await openFeedback(
    client,
    {
      credit: 5,
      onBatch: ({ records, settle }) => {
        const ours = records.filter(({ originalMessageId }) => wanted.has(originalMessageId));
        for (const record of ours) {
          arrived.set(record.originalMessageId, record);
          waiting.get(record.originalMessageId)?.(record);
        }
        if (ours.length === records.length) settle('accept');
        else {
          setTimeout(() => {
            settle('release');
          }, giveBackAfterMs).unref();
        }
      },
    },
    signal,
  );
  return {
    expect(messageId) {
      wanted.add(messageId);
    },
    async next(messageId, until) {
      const record = arrived.get(messageId);
      if (record !== undefined) return record;
      using end = anyOf(until, client.over);
      end.throwIfAborted();
      return await new Promise((resolve, reject) => {
        waiting.set(messageId, resolve);
        end.addEventListener('abort', () => {
          reject(end.reason as Error);
        });
      });
    },
  };
}

export interface FeedbackWait {
  /** Call it before the command is sent, so that its feedback is known for ours. */
  expect(messageId: string): void;
  /** Resolves with the record of the command. */
  next(messageId: string, signal: AbortSignal): Promise<FeedbackRecord>;
}

/** Giving back counts as a delivery, and after ten of them a batch is lost. */
const giveBackAfterMs = 1_000;

function parseFeedback(message: Message): FeedbackRecord[] {
  try {
    const records: unknown = JSON.parse(bodyOf(message).toString('utf8'));
    if (!Array.isArray(records)) throw new TypeError('not an array');
    return records.map(asRecord);
  } catch (cause) {
    throw new AgentError('protocol', 'the hub sent feedback that cannot be read', { cause });
  }
}

function asRecord(record: unknown): FeedbackRecord {
  const fields = record as Partial<FeedbackRecord>;
  return {
    originalMessageId: fields.originalMessageId ?? '',
    enqueuedTimeUtc: fields.enqueuedTimeUtc ?? '',
    // Records of success have come without a status code.
    statusCode: fields.statusCode ?? 'Success',
    description: fields.description ?? '',
    deviceId: fields.deviceId ?? '',
    deviceGenerationId: fields.deviceGenerationId ?? '',
  };
}
