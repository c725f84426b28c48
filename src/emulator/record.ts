import { AgentError } from '../errors.js';
import type { DeviceId, SendOutcome } from '../model.js';
import type { Direction, LinkKind } from './addresses.js';
import type { HubMessage } from './message.js';
import type { DeadReason } from './mailbox.js';

/**
 * The hub's own record of what happened, in order: every connection, token, link, transfer, delivery and outcome.
 * A test asserts on it; `iothub-emulator start` prints it.
 */
export type RecordEntry = { at: number } & RecordedEvent;

export type RecordedEvent =
  | { event: 'connected'; connection: number; transport: Transport }
  | { event: 'disconnected'; connection: number }
  | { event: 'token'; connection: number; session: number; audience: string; status: number; reason?: string }
  | ({ event: 'attached' } & LinkFacts & { name: string; address: string })
  | ({ event: 'refused' } & LinkFacts & { address: string; condition: string; reason: string })
  | ({ event: 'detached' } & LinkFacts & { by: 'client' | 'hub'; condition?: string | undefined })
  | ({ event: 'telemetry'; connection: number; outcome: RecordedOutcome } & DeviceId & RecordedMessage)
  | ({ event: 'command'; connection: number; outcome: RecordedOutcome } & Partial<DeviceId> & RecordedMessage)
  | ({ event: 'delivery'; connection: number; lockToken: string } & Numbered & DeviceId & RecordedMessage)
  | ({ event: 'outcome'; connection: number; lockToken: string; lockLost: boolean } & DeviceId & {
        messageId?: string | undefined;
        outcome: SendOutcome;
      })
  | ({ event: 'dead-letter'; reason: DeadReason; messageId?: string | undefined } & Numbered & DeviceId)
  | { event: 'feedback'; records: FeedbackRecord[] }
  /** An upload ended. */
  | { event: 'file'; deviceId: string; blobName: string; bytes: number; succeeded: boolean }
  | ({ event: 'method'; name: string; status?: number | undefined } & DeviceId)
  | ({ event: 'twin'; operation: string; version?: number | undefined; status: number } & DeviceId)
  | ({ event: 'registry'; change: 'created' | 'updated' | 'deleted' } & DeviceId)
  | { event: 'fault'; fault: string }
  /** Something of the emulator itself went wrong. */
  | { event: 'trouble'; text: string };

export type Transport = 'tls' | 'websocket' | 'tcp' | 'https';

/** What the hub answered a transfer with; `none` when a fault kept it from answering. */
export type RecordedOutcome = SendOutcome | { outcome: 'none' };

export interface LinkFacts extends Partial<DeviceId> {
  connection: number;
  session: number;
  link: LinkKind;
  direction: Direction;
}

export type RecordedMessage = Omit<HubMessage, 'id' | 'correlation'>;

interface Numbered {
  sequenceNumber: number;
  deliveryCount: number;
}

/** One record of a feedback message, as the service reads it. */
export interface FeedbackRecord {
  originalMessageId: string;
  enqueuedTimeUtc: string;
  statusCode: 'Success' | DeadReason;
  description: string;
  deviceId: string;
  deviceGenerationId: string;
}

export type EventName = RecordedEvent['event'];
export type EntryOf<Name extends EventName> = Extract<RecordEntry, { event: Name }>;

export interface WaitOptions {
  /** Default 10 000. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** Older entries are let go of when there are more, or their bodies take more. */
export interface RecordLimits {
  entries: number;
  bytes: number;
}

export class HubRecord {
  readonly #now: () => number;
  readonly #limits: RecordLimits;
  readonly #listeners = new Set<(entry: RecordEntry) => void>();
  readonly #entries: RecordEntry[] = [];

  #bytes = 0;

  constructor(now: () => number, limits: RecordLimits) {
    this.#now = now;
    this.#limits = limits;
  }

  get entries(): readonly RecordEntry[] {
    return this.#entries;
  }

  /** All entries of one kind, in order. */
  of<Name extends EventName>(name: Name): EntryOf<Name>[] {
    return this.#entries.filter((entry): entry is EntryOf<Name> => entry.event === name);
  }

  add(event: RecordedEvent): void {
    const entry = { at: this.#now(), ...event };
    this.#entries.push(entry);
    this.#bytes += bodyLength(entry);
    const { entries, bytes } = this.#limits;
    // Cut in strides: shifting an array of this size for each entry would cost more than the entry.
    if (this.#entries.length > entries * 1.25 || this.#bytes > bytes * 1.25) this.#cut(entries, bytes);
    for (const listener of this.#listeners) listener(entry);
  }

  /** Calls `listener` with each entry from now on; returns what ends that. */
  listen(listener: (entry: RecordEntry) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /**
   * Waits until `found` gives something true of the record, and resolves to it. Asked now, and again after whatever
   * was recorded in one go. Rejects with the last entries in its message when the time is up.
   */
  async waitFor<Found>(
    found: (record: HubRecord) => Found,
    options: WaitOptions = {},
  ): Promise<Truthy<Found>> {
    const { timeoutMs = 10_000, signal } = options;
    const already = found(this);
    if (already) return already as Truthy<Found>;
    return await new Promise((resolve, reject) => {
      let scheduled = false;
      const settle = (act: () => void): void => {
        stopListening();
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        act();
      };
      const look = (): void => {
        scheduled = false;
        try {
          const value = found(this);
          if (value)
            settle(() => {
              resolve(value as Truthy<Found>);
            });
        } catch (error) {
          settle(() => {
            reject(error instanceof Error ? error : new Error(String(error)));
          });
        }
      };
      const stopListening = this.listen(() => {
        if (!scheduled) setImmediate(look);
        scheduled = true;
      });
      const abort = (): void => {
        settle(() => {
          reject(signal?.reason as Error);
        });
      };
      const timer = setTimeout(() => {
        settle(() => {
          reject(this.#timeout(found, timeoutMs));
        });
      }, timeoutMs);
      signal?.addEventListener('abort', abort, { once: true });
    });
  }

  #cut(entries: number, bytes: number): void {
    let gone = 0;
    for (const entry of this.#entries) {
      if (this.#entries.length - gone <= entries && this.#bytes <= bytes) break;
      this.#bytes -= bodyLength(entry);
      gone++;
    }
    this.#entries.splice(0, gone);
  }

  #timeout(found: (record: HubRecord) => unknown, timeoutMs: number): AgentError {
    const last = this.#entries.slice(-10).map((entry) => `  ${describeEntry(entry)}`);
    return new AgentError(
      'unavailable',
      `the hub's record did not come to hold what was waited for within ${timeoutMs} ms: ${String(found)}\n` +
        `its last entries:\n${last.join('\n')}`,
    );
  }
}

function bodyLength(entry: RecordEntry): number {
  return 'body' in entry ? entry.body.length : 0;
}

type Truthy<Value> = Exclude<Value, false | 0 | '' | null | undefined>;

/** One line for people. */
export function describeEntry(entry: RecordEntry): string {
  const { at, event, ...facts } = entry;
  const words = Object.entries(facts).map(([name, value]) => `${name}=${shown(value)}`);
  return `${new Date(at).toISOString()} ${event} ${words.join(' ')}`;
}

function shown(value: unknown): string {
  if (Buffer.isBuffer(value)) return JSON.stringify(value.toString('utf8').slice(0, 80));
  return typeof value === 'string' ? value : JSON.stringify(value);
}
