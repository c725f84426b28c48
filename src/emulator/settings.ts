import type { Clock } from '../clock.js';
import { systemClock } from '../clock.js';
import { hubLimits } from '../model.js';
import type { MailboxSettings } from './mailbox.js';
import type { Retention } from './partitions.js';
import type { RecordLimits } from './record.js';

/** How this hub behaves. The defaults are those of IoT Hub, but for what `docs/emulator.md` says. */
export interface HubSettings {
  clock: Clock;
  /** Base64 key of all policies; keys of devices are derived from it unless they are given. */
  key: string;
  /** Names without port that tokens may be for. */
  hostNames: readonly string[];
  /** The first label of the hub's name. */
  hubName: string;
  /** Name of the Event Hubs-compatible endpoint. */
  eventHubName: string;
  /** PEM certificates, besides the hub's own, that may sign devices' certificates. */
  deviceAuthorities: readonly string[];
  commands: Omit<MailboxSettings, 'capacity'>;
  /** Life of a command that names no expiry, in milliseconds. */
  defaultTtlMs: number;
  /** Feedback is gathered this long into one message. The real hub takes 15 s. */
  feedbackBatchMs: number;
  /** How long after its expiry a token still works. The real hub takes minutes. */
  tokenGraceMs: number;
  /** A client that sends nothing for this long is disconnected; told in the open frame. */
  idleTimeoutMs: number;
  /** Credit granted on links that clients send on. */
  creditWindow: number;
  /** Partitions of the event log. */
  partitions: number;
  /** How much each partition keeps. */
  retention: Retention;
  /** How much the record keeps. */
  record: RecordLimits;
}

/**
 * Every emulator's key unless it is given another, so that examples can be written down. It protects nothing, and
 * an emulator that listens beyond loopback refuses it.
 */
export const wellKnownKey = Buffer.from('iothub-emulator: no secret at all').toString('base64');

export const defaultSettings: HubSettings = {
  clock: systemClock,
  key: wellKnownKey,
  hostNames: ['localhost', '127.0.0.1', '[::1]'],
  hubName: 'localhost',
  eventHubName: 'iothub-events',
  deviceAuthorities: [],
  commands: {
    lockMs: hubLimits.commandLockMs,
    maxDeliveryCount: 10,
    requeueLost: 'at-once',
    counts: 'abandons',
  },
  defaultTtlMs: 3_600_000,
  feedbackBatchMs: 100,
  tokenGraceMs: 0,
  idleTimeoutMs: 240_000,
  creditWindow: 1000,
  partitions: 4,
  retention: { count: 100_000, bytes: 64 * 1024 * 1024, ageMs: 86_400_000 },
  record: { entries: 200_000, bytes: 256 * 1024 * 1024 },
};
