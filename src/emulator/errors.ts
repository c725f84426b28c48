import { randomBytes } from 'node:crypto';

/**
 * What the hub says when it refuses: an AMQP condition, and a description that is JSON with the hub's own error code,
 * a tracking id and a sentence. Codes and conditions: "Troubleshooting Azure IoT Hub error codes" and frame logs of
 * the service.
 */
export interface HubError {
  condition: string;
  description: string;
  /** Symbol keys on the wire. */
  info?: Record<string, unknown>;
}

export type Refusal = keyof typeof refusals;

const refusals = {
  unauthorized: ['amqp:unauthorized-access', 401_003],
  'token-invalid': ['amqp:unauthorized-access', 401_002],
  'device-disabled': ['amqp:unauthorized-access', 401_003],
  'device-unknown': ['amqp:not-found', 404_001],
  'module-unknown': ['amqp:not-found', 404_010],
  'address-unknown': ['amqp:not-found', 404_006],
  'invalid-operation': ['amqp:not-allowed', 400_003],
  'argument-invalid': ['com.microsoft:argument-error', 400_004],
  'expiry-invalid': ['com.microsoft:argument-error', 403_009],
  'queue-full': ['amqp:resource-limit-exceeded', 403_004],
  'quota-exceeded': ['amqp:resource-limit-exceeded', 403_002],
  'too-many-tokens': ['amqp:resource-limit-exceeded', 403_005],
  'message-too-large': ['amqp:link:message-size-exceeded', 413_001],
  'lock-lost': ['com.microsoft:message-lock-lost', 412_002],
  throttled: ['com.microsoft:device-container-throttled', 429_001],
  'taken-over': ['amqp:link:stolen', 400_027],
  'decode-error': ['amqp:decode-error', 400_006],
  internal: ['amqp:internal-error', 500_001],
} as const satisfies Record<string, readonly [condition: string, errorCode: number]>;

/** A refusal in the words of the hub. */
export function refusal(kind: Refusal, message: string, now: number): HubError {
  const [condition, errorCode] = refusals[kind];
  return hubError(condition, errorCode, message, now);
}

export function hubError(condition: string, errorCode: number, message: string, now: number): HubError {
  const time = new Date(now).toISOString();
  const trackingId = `${randomBytes(16).toString('hex').toUpperCase()}-G:0-TimeStamp:${time}`;
  return {
    condition,
    description: JSON.stringify({ errorCode, trackingId, message, timestampUtc: time, info: null }),
    info: { 'com.microsoft:tracking-id': trackingId },
  };
}
