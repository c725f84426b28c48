import type { HubClock } from './clock.js';
import { newLockToken } from './wire.js';

/**
 * A queue with peek-lock, as IoT Hub keeps one for each device's commands and one for feedback:
 *
 *     queued → locked → completed | dead
 *        ↑_______|  abandoned, lock expired, or its link lost
 *
 * What returns keeps its place: order is by sequence number. Source: "Send cloud-to-device messages from IoT Hub".
 */
export class Mailbox<Item> {
  readonly #settings: MailboxSettings;
  readonly #clock: HubClock;
  readonly #onDead: (entry: Entry<Item>, reason: DeadReason) => void;
  /** In order of sequence numbers; what has left is taken out. */
  readonly #entries: Entry<Item>[] = [];
  readonly #consumers = new Set<Consumer<Item>>();
  #nextSequence = 1;
  #cancelAlarm: (() => void) | undefined;
  #alarmAt = Infinity;

  constructor(
    settings: MailboxSettings,
    clock: HubClock,
    onDead: (entry: Entry<Item>, reason: DeadReason) => void,
  ) {
    this.#settings = settings;
    this.#clock = clock;
    this.#onDead = onDead;
  }

  get depth(): number {
    return this.#entries.length;
  }

  /** What is in it, in order, whether locked or not. */
  get entries(): readonly Readonly<Entry<Item>>[] {
    return this.#entries;
  }

  /** Takes a message in, unless the queue is full. */
  enqueue(item: Item, expiresAt: number): Entry<Item> | 'full' {
    if (this.#entries.length >= this.#settings.capacity) return 'full';
    const entry: Entry<Item> = {
      item,
      sequenceNumber: this.#nextSequence++,
      enqueuedAt: this.#clock.now(),
      expiresAt,
      deliveryCount: 0,
      state: { is: 'queued' },
    };
    this.#entries.push(entry);
    this.pump();
    return entry;
  }

  /** From now on `consumer` is offered messages whenever it has room; it gets them in order. */
  attach(consumer: Consumer<Item>): void {
    this.#consumers.add(consumer);
    this.pump();
  }

  /** The link is gone: what it held returns at once, or when its lock ends. */
  detach(consumer: Consumer<Item>): void {
    if (!this.#consumers.delete(consumer)) return;
    if (this.#settings.requeueLost === 'at-once') {
      for (const entry of [...this.#entries]) {
        if (entry.state.is === 'locked' && entry.state.consumer === consumer) {
          this.#requeue(entry, this.#settings.counts === 'every-delivery');
        }
      }
    }
    this.pump();
  }

  /** Locks the first waiting message for someone who asked for one (HTTPS), or tells that there is none. */
  take(): Locked<Item> | undefined {
    this.#expire();
    const entry = this.#firstQueued();
    return entry === undefined ? undefined : this.#lock(entry, undefined);
  }

  /** Hands out messages while there are some and somebody has room. */
  pump(): void {
    this.#expire();
    for (const consumer of this.#consumers) {
      while (consumer.hasRoom()) {
        const entry = this.#firstQueued();
        if (entry === undefined) break;
        consumer.deliver(this.#lock(entry, consumer));
      }
    }
    this.#setAlarm();
  }

  /** Whether this lock still holds its message. */
  holds(token: string): boolean {
    return this.#lockedBy(token) !== undefined;
  }

  /** Settles the message that this lock holds; `lock-lost` when it holds none any more. */
  settle(token: string, outcome: 'complete' | 'reject' | 'abandon'): 'done' | 'lock-lost' {
    const entry = this.#lockedBy(token);
    if (entry === undefined) return 'lock-lost';
    if (outcome === 'complete') this.#remove(entry);
    else if (outcome === 'reject') this.#bury(entry, 'Rejected');
    else this.#requeue(entry, true);
    this.pump();
    return 'done';
  }

  /** Drops everything, telling each as purged; returns how many there were. */
  purge(): number {
    const all = this.#entries.splice(0);
    for (const entry of all) this.#onDead(entry, 'Purged');
    this.#setAlarm();
    return all.length;
  }

  /** Puts back what a former process kept. */
  restore(entries: readonly StoredEntry<Item>[]): void {
    for (const stored of entries) {
      this.#entries.push({ ...stored, state: { is: 'queued' } });
      this.#nextSequence = Math.max(this.#nextSequence, stored.sequenceNumber + 1);
    }
    this.pump();
  }

  stop(): void {
    this.#cancelAlarm?.();
    this.#cancelAlarm = undefined;
  }

  #lockedBy(token: string): Entry<Item> | undefined {
    this.#expire();
    return this.#entries.find(({ state }) => state.is === 'locked' && state.token === token);
  }

  #firstQueued(): Entry<Item> | undefined {
    return this.#entries.find(({ state }) => state.is === 'queued');
  }

  #lock(entry: Entry<Item>, consumer: Consumer<Item> | undefined): Locked<Item> {
    const { token, tag } = newLockToken();
    entry.state = { is: 'locked', token, until: this.#clock.now() + this.#settings.lockMs, consumer };
    this.#setAlarm();
    return { entry, token, tag };
  }

  #requeue(entry: Entry<Item>, counted: boolean): void {
    entry.state = { is: 'queued' };
    if (counted) entry.deliveryCount++;
    if (entry.deliveryCount >= this.#settings.maxDeliveryCount) this.#bury(entry, 'DeliveryCountExceeded');
    else if (entry.expiresAt <= this.#clock.now()) this.#bury(entry, 'Expired');
  }

  #bury(entry: Entry<Item>, reason: DeadReason): void {
    this.#remove(entry);
    this.#onDead(entry, reason);
  }

  #remove(entry: Entry<Item>): void {
    const index = this.#entries.indexOf(entry);
    if (index >= 0) this.#entries.splice(index, 1);
  }

  /** Time has its say: locks that ended, and waiting messages that expired. */
  #expire(): void {
    const now = this.#clock.now();
    if (now < this.#nextDue()) return;
    for (const entry of [...this.#entries]) {
      if (entry.state.is === 'locked') {
        if (entry.state.until <= now) this.#requeue(entry, this.#settings.counts === 'every-delivery');
      } else if (entry.expiresAt <= now) this.#bury(entry, 'Expired');
    }
  }

  #setAlarm(): void {
    const due = this.#nextDue();
    if (due === this.#alarmAt) return;
    this.#cancelAlarm?.();
    this.#cancelAlarm = undefined;
    this.#alarmAt = due;
    if (due === Infinity) return;
    this.#cancelAlarm = this.#clock.at(due, () => {
      this.#alarmAt = Infinity;
      this.pump();
    });
  }

  #nextDue(): number {
    let due = Infinity;
    for (const { state, expiresAt } of this.#entries) {
      due = Math.min(due, state.is === 'locked' ? state.until : expiresAt);
    }
    return due;
  }
}

export interface MailboxSettings {
  /** How long a delivered message is withheld from others, in milliseconds. */
  lockMs: number;
  /** After so many counted deliveries it is dead. */
  maxDeliveryCount: number;
  /** Most messages it holds, locked ones included. */
  capacity: number;
  /** When the link that holds a message is lost: back in the queue at once, or when its lock ends. */
  requeueLost: 'at-once' | 'at-lock-end';
  /** What raises the delivery count: abandons only, or every delivery that did not complete. */
  counts: 'abandons' | 'every-delivery';
}

export type DeadReason = 'Expired' | 'DeliveryCountExceeded' | 'Rejected' | 'Purged';

export interface Entry<Item> {
  readonly item: Item;
  readonly sequenceNumber: number;
  /** Milliseconds since the epoch. */
  readonly enqueuedAt: number;
  readonly expiresAt: number;
  deliveryCount: number;
  state:
    { is: 'queued' } | { is: 'locked'; token: string; until: number; consumer: Consumer<Item> | undefined };
}

export type StoredEntry<Item> = Omit<Entry<Item>, 'state'>;

/** A message that was handed out, with the lock that settles it. */
export interface Locked<Item> {
  entry: Readonly<Entry<Item>>;
  token: string;
  /** The lock token as a delivery tag. */
  tag: Buffer;
}

/** Whoever is pushed messages: a link. */
export interface Consumer<Item> {
  hasRoom(): boolean;
  deliver(locked: Locked<Item>): void;
}
