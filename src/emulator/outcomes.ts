import type { FaultAction } from './faults.js';
import { hubError } from './errors.js';
import type { RecordedOutcome } from './record.js';

/** What a fault makes the hub answer a transfer with; undefined when it leaves the answer alone. */
export function outcomeOf(fault: FaultAction, now: number): RecordedOutcome | undefined {
  if (fault.act === 'say-nothing') return { outcome: 'none' };
  if (fault.act === 'refuse') return rejection(fault, now);
  if (fault.act !== 'answer') return undefined;
  switch (fault.outcome) {
    case 'rejected':
      return rejection(fault, now);
    case 'modified':
      return { outcome: 'modified', undeliverableHere: false };
    default:
      return { outcome: fault.outcome };
  }
}

function rejection(
  { condition = 'amqp:internal-error', description }: { condition?: string; description?: string },
  now: number,
): RecordedOutcome {
  const text = description ?? hubError(condition, 500_001, 'a fault was asked for', now).description;
  return { outcome: 'rejected', condition, description: text };
}
