import type { SendOutcome } from '../model.js';
import { refusal } from './errors.js';
import { takeFaultMessage } from './fault-messages.js';
import type { FaultAction } from './faults.js';
import { recorded } from './hub.js';
import type { Hub } from './hub.js';
import { maxMessageBytes } from './links.js';
import type { LinkContext, Transfer } from './links.js';
import { decode, fromWire, sectionsOf } from './message.js';
import type { HubMessage } from './message.js';
import { outcomeOf } from './outcomes.js';

/** A transfer with this message-format is a batch: data sections, each a whole encoded message. */
const batchFormat = 0x80013700;

/** Device-to-cloud messages, single or in batches. A batch gets one disposition: all of it or nothing. */
export function openTelemetry(
  context: LinkContext,
  hub: Hub,
): (transfer: Transfer, fault?: FaultAction) => void {
  const { device, connection } = context;
  return (transfer, fault) => {
    if (device === undefined) return;
    const { deviceId, moduleId } = device;
    const { messages, outer } = messagesOf(transfer);
    if (takeFaultMessage(outer, connection, hub)) {
      transfer.settle({ outcome: 'accepted' });
      return;
    }
    if (messages.some((message) => message.body.length > maxMessageBytes)) {
      const text = 'the message is larger than the link takes';
      connection.detach(context, refusal('message-too-large', text, hub.now()));
      return;
    }
    const forced = fault && outcomeOf(fault, hub.now());
    const outcome = forced ?? hub.takeTelemetry(device, messages);
    for (const message of messages) {
      hub.record.add({
        event: 'telemetry',
        connection: connection.number,
        deviceId,
        moduleId,
        ...recorded(message),
        outcome,
      });
    }
    answer(transfer, outcome, fault, hub);
  };
}

/** The messages of a transfer, and the outermost one: of a batch, the container. */
function messagesOf({ content, format }: Transfer): { messages: HubMessage[]; outer: HubMessage } {
  const wire = Buffer.isBuffer(content) ? decode(content) : content;
  const outer = fromWire(wire);
  if (format !== batchFormat) return { messages: [outer], outer };
  return { messages: sectionsOf(wire.body).map((part) => fromWire(decode(part))), outer };
}

/** Settles now, later, or never. */
export function answer(
  transfer: Transfer,
  outcome: SendOutcome | { outcome: 'none' },
  fault: FaultAction | undefined,
  hub: Hub,
): void {
  if (outcome.outcome === 'none') return;
  if (fault?.act === 'delay') {
    hub.clock.at(hub.now() + fault.ms, () => {
      transfer.settle(outcome);
    });
  } else transfer.settle(outcome);
}
