/**
 * The vocabulary of the product, in the terms of Azure IoT Hub. Plain data; nothing here does anything.
 */

/** Who a message is from or for. */
export interface DeviceId {
  deviceId: string;
  moduleId?: string | undefined;
}

/** Application properties: IoT Hub keeps strings only. */
export type Properties = Record<string, string>;

/** What telemetry and commands have in common: the AMQP properties that IoT Hub carries. */
export interface MessageFields {
  messageId?: string | undefined;
  correlationId?: string | undefined;
  userId?: string | undefined;
  /** MIME type. The hub routes on the body only with `application/json` and an encoding. */
  contentType?: string | undefined;
  /** `utf-8`, `utf-16` or `utf-32` for text. */
  contentEncoding?: string | undefined;
  /** Absolute expiry, milliseconds since the epoch. */
  expiresAt?: number | undefined;
  properties: Properties;
  body: Buffer;
}

/** A device-to-cloud message. */
export interface TelemetryMessage extends MessageFields {
  messageId: string;
  /** Creation time as the device says (`iothub-creation-time-utc`), RFC 3339. */
  creationTime?: string | undefined;
  /** Plug and Play component (`dt-subject`). */
  component?: string | undefined;
  /** Output of a module (`iothub-outputname`). */
  outputName?: string | undefined;
}

/** What became of one telemetry message, as the hub's disposition said. */
export type SendOutcome =
  | { outcome: 'accepted' }
  | { outcome: 'rejected'; condition?: string | undefined; description?: string | undefined }
  | { outcome: 'released' }
  | { outcome: 'modified'; undeliverableHere: boolean };

/** A cloud-to-device message as it was delivered. */
export interface Command extends MessageFields, DeviceId {
  /** Which feedback its sender asked for: `none`, `positive`, `negative` or `full`. */
  ack?: string | undefined;
  /** When the hub took it, milliseconds since the epoch. */
  enqueuedAt?: number | undefined;
  sequenceNumber?: number | undefined;
  /** The hub's count of earlier deliveries; it may stay 0. */
  deliveryCount: number;
  /** Identifies this delivery to the hub until it is settled or its lock expires. */
  lockToken: string;
}

/** What a handler decided about a command. */
export type CommandOutcome =
  | { outcome: 'accept' }
  | { outcome: 'reject'; reason?: string | undefined }
  | { outcome: 'release'; reason?: string | undefined };

/** What goes back about a command that has its outcome, as telemetry. */
export interface CommandReply {
  body: Buffer;
  /** Present when the body is cut: how many bytes all of it had. */
  wholeBytes?: number | undefined;
}

/** Limits that IoT Hub documents (quotas and throttling). */
export const hubLimits = {
  /** One device-to-cloud message or batch, with its properties. */
  telemetryBytes: 256 * 1024,
  /** One cloud-to-device message. */
  commandBytes: 64 * 1024,
  /** Commands waiting for one device. */
  commandQueueDepth: 50,
  /** A delivered command is locked this long, fixed. */
  commandLockMs: 60_000,
} as const;
