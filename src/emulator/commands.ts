import type { SendOutcome } from '../model.js';
import { identityKey } from './device.js';
import type { Device } from './device.js';
import { refusal } from './errors.js';
import type { FaultAction } from './faults.js';
import { recorded } from './hub.js';
import type { Hub } from './hub.js';
import type { LinkContext, Outlet, Transfer } from './links.js';
import type { Locked, Mailbox } from './mailbox.js';
import { fromWire, toWire } from './message.js';
import type { HubMessage, WireMessage } from './message.js';
import { outcomeOf } from './outcomes.js';
import { answer } from './telemetry.js';
import { timestamp, ubyte, ulong } from './wire.js';

/** Cloud-to-device messages: a service's transfer goes into the mailbox of the device that its `to` names. */
export function openCommandSending(
  { connection }: LinkContext,
  hub: Hub,
): (transfer: Transfer, fault?: FaultAction) => void {
  return (transfer, fault) => {
    const message = fromWire(transfer.content as WireMessage);
    const forced = fault && outcomeOf(fault, hub.now());
    const { outcome, device } = forced ? { outcome: forced } : hub.takeCommand(message);
    hub.record.add({
      event: 'command',
      connection: connection.number,
      ...(device && { deviceId: device.deviceId, moduleId: device.moduleId }),
      ...recorded(message),
      outcome,
    });
    answer(transfer, outcome, fault, hub);
  };
}

/** A device's mailbox, pushed while the link has credit, each message locked until the device settles it. */
export function openCommandDeliveries(outlet: Outlet, hub: Hub): void {
  const { device, connection } = outlet.context;
  if (device === undefined) return;
  const { deviceId, moduleId } = device;
  push(outlet, device.mailbox, {
    encode: (locked) => commandOnTheWire(device, locked),
    delivered: ({ entry, token }) => {
      hub.record.add({
        event: 'delivery',
        connection: connection.number,
        deviceId,
        moduleId,
        lockToken: token,
        sequenceNumber: entry.sequenceNumber,
        deliveryCount: entry.deliveryCount,
        ...recorded(entry.item),
      });
    },
    settled: ({ entry, token }, outcome, lockLost) => {
      const { messageId } = entry.item;
      const facts = { connection: connection.number, deviceId, moduleId, lockToken: token };
      hub.record.add({ event: 'outcome', ...facts, messageId, outcome, lockLost });
      if (outcome.outcome === 'accepted' && !lockLost) hub.feedback.report(device, entry.item, 'Success');
    },
    now: () => hub.now(),
  });
}

/** Feedback for a service: a mailbox like any other. */
export function openFeedback(outlet: Outlet, hub: Hub): void {
  openServiceBound(outlet, hub, hub.feedback.mailbox);
}

/** Notifications of files, in the same way. */
export function openNotifications(outlet: Outlet, hub: Hub): void {
  openServiceBound(outlet, hub, hub.files.notifications);
}

function openServiceBound(outlet: Outlet, hub: Hub, mailbox: Mailbox<HubMessage>): void {
  push(outlet, mailbox, {
    encode: ({ entry, token }) => ({
      ...toWire(entry.item),
      message_annotations: deliveryAnnotations(entry, token),
    }),
    now: () => hub.now(),
  });
}

interface Push {
  encode: (locked: Locked<HubMessage>) => object;
  delivered?: (locked: Locked<HubMessage>) => void;
  settled?: (locked: Locked<HubMessage>, outcome: SendOutcome, lockLost: boolean) => void;
  now: () => number;
}

function push(outlet: Outlet, mailbox: Mailbox<HubMessage>, { encode, delivered, settled, now }: Push): void {
  const consumer = {
    hasRoom: () => outlet.room > 0,
    deliver: (locked: Locked<HubMessage>) => {
      const { connection } = outlet.context;
      const fault = connection.fault('delivery', outlet.context);
      delivered?.(locked);
      if (fault?.act === 'say-nothing' || (fault && connection.suffer(fault, outlet.context))) return;
      const message = fault?.act === 'garble' ? Buffer.from(fault.hex, 'hex') : encode(locked);
      outlet.send(message, locked.tag, (outcome) => {
        const lockLost = !mailbox.holds(locked.token);
        settled?.(locked, outcome, lockLost);
        mailbox.settle(locked.token, effectOf(outcome));
        return lockLost ? lockLostAnswer(now()) : outcome;
      });
    },
  };
  outlet.onRoom = () => {
    mailbox.pump();
  };
  outlet.onClosed = () => {
    mailbox.detach(consumer);
  };
  mailbox.attach(consumer);
}

/** `released` and `modified` both bring it back. */
function effectOf({ outcome }: SendOutcome): 'complete' | 'reject' | 'abandon' {
  if (outcome === 'accepted') return 'complete';
  return outcome === 'rejected' ? 'reject' : 'abandon';
}

function lockLostAnswer(now: number): SendOutcome {
  const { condition, description } = refusal('lock-lost', 'the lock of this message has ended', now);
  return { outcome: 'rejected', condition, description };
}

function commandOnTheWire(device: Device, { entry, token }: Locked<HubMessage>): object {
  return {
    ...toWire(entry.item),
    to: `/devices/${identityKey(device)}/messages/devicebound`,
    message_annotations: deliveryAnnotations(entry, token),
  };
}

/** Types as the C# SDK reads them; it ignores an annotation of another type. */
function deliveryAnnotations(entry: Locked<HubMessage>['entry'], token: string): object {
  return {
    'x-opt-lock-token': token,
    'x-opt-sequence-number': ulong(entry.sequenceNumber),
    'iothub-enqueuedtime': timestamp(entry.enqueuedAt),
    'iothub-deliverycount': ubyte(entry.deliveryCount),
  };
}
