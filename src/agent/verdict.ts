import type { SendOutcome } from '../model.js';

/** What the hub's answer to a telemetry message means for it. */
export type Verdict =
  /** The hub has it. */
  | { verdict: 'done' }
  /** It is sent again, after a pause for all that is sent when the hub wants one. */
  | { verdict: 'again'; pause?: Pause }
  /** The hub will never take it. */
  | { verdict: 'refused'; condition: string; description?: string | undefined };

/** Why nothing is sent for a while. `trouble`: seconds; `throttled`: tens of seconds; `quota` and `identity`: minutes. */
export type Pause = 'trouble' | 'throttled' | 'quota' | 'identity';

/** So often is tried again what the hub gave back or refused without a reason that we know. */
const attemptsBeforeRefusal = 5;

/** `attempts` counts the answers so far for this message, this one included. */
export function verdictOn(answer: SendOutcome, attempts: number): Verdict {
  switch (answer.outcome) {
    case 'accepted':
      return { verdict: 'done' };
    case 'released':
      // A hub that gives back everything would be asked again without end, as fast as it answers.
      return attempts < attemptsBeforeRefusal ? { verdict: 'again' } : { verdict: 'again', pause: 'trouble' };
    case 'modified':
      if (!answer.undeliverableHere && attempts < attemptsBeforeRefusal) return { verdict: 'again' };
      return {
        verdict: 'refused',
        condition: 'modified',
        description: 'the hub gave it back as undeliverable',
      };
    case 'rejected': {
      const { condition = 'rejected', description } = answer;
      if (aboutTheMessage.has(condition)) return { verdict: 'refused', condition, description };
      const pause = pauses[condition];
      if (pause !== undefined) return { verdict: 'again', pause };
      if (attempts < attemptsBeforeRefusal) return { verdict: 'again', pause: 'trouble' };
      return { verdict: 'refused', condition, description };
    }
  }
}

/** Whether a batch was refused for something that one of its messages may be alone in. */
export function isAboutTheMessage(answer: SendOutcome): boolean {
  return verdictOn(answer, Infinity).verdict === 'refused';
}

/** Conditions that will be the same tomorrow. */
const aboutTheMessage = new Set([
  'amqp:link:message-size-exceeded',
  'amqp:decode-error',
  'amqp:invalid-field',
  'amqp:not-allowed',
  'amqp:not-implemented',
  'amqp:precondition-failed',
  'com.microsoft:argument-error',
  'com.microsoft:argument-out-of-range',
]);

const pauses: Partial<Record<string, Pause>> = {
  'amqp:internal-error': 'trouble',
  'amqp:resource-locked': 'trouble',
  'com.microsoft:timeout': 'trouble',
  'com.microsoft:device-container-throttled': 'throttled',
  'com.microsoft:server-busy': 'throttled',
  'amqp:resource-limit-exceeded': 'quota',
  'com.microsoft:quota-exceeded': 'quota',
  'amqp:unauthorized-access': 'identity',
  'amqp:not-found': 'identity',
  'com.microsoft:iot-hub-suspended': 'identity',
  'com.microsoft:iot-hub-not-found-error': 'identity',
};

/** How long a pause is at first and at most, milliseconds. */
export const pauseBounds: Record<Pause, { firstMs: number; lastMs: number }> = {
  trouble: { firstMs: 1_000, lastMs: 30_000 },
  throttled: { firstMs: 10_000, lastMs: 60_000 },
  quota: { firstMs: 60_000, lastMs: 300_000 },
  identity: { firstMs: 60_000, lastMs: 300_000 },
};
