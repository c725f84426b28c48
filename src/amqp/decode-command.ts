import type { Command, DeviceId } from '../model.js';
import type { ReceivedDelivery } from './guard/received-deliveries.js';
import { Violation } from './guard/values.js';
import { define } from './messages.js';
import { ValueReader } from './value-reader.js';

/**
 * Reads a delivered command. Annotations of a wrong type are ignored, as the C# SDK does. Throws a `Violation` for what is
 * no message: anyone who may write to the hub can send one. AMQP 1.0 part 3 (messaging), section 3.2.
 *
 * By hand, as every command goes through here: rhea makes an object of each value first, of which most are for nobody.
 */
export function decodeCommand({ bytes, start, end, tag }: ReceivedDelivery, identity: DeviceId): Command {
  if (start === end) throw new Violation('it is empty');
  const command = blankFor(identity);
  /** Joined at the end: a body can be in very many pieces. */
  const body: Buffer[] = [];
  reader.over(bytes, start, end);
  while (!reader.isAtEnd) readSection(command, body);
  command.body = body.length === 1 && body[0] !== undefined ? body[0] : Buffer.concat(body);
  if (command.lockToken === '') command.lockToken = tag.toString('hex');
  return command;
}

const reader = new ValueReader();

function readSection(command: Command, body: Buffer[]): void {
  switch (reader.descriptor()) {
    case 0x72:
      for (let left = reader.enter('map'); left > 0; left -= 2) readAnnotation(command);
      reader.leave();
      return;
    case 0x73: {
      const count = reader.enter('list');
      for (let field = 0; field < count; field++) readField(command, field);
      reader.leave();
      return;
    }
    case 0x74:
      for (let left = reader.enter('map'); left > 0; left -= 2) readProperty(command);
      reader.leave();
      return;
    case 0x75:
      body.push(reader.binary());
      return;
    case 0x76:
    case 0x77:
      body.push(reader.asBytes());
      return;
    case 0x70: // header
    case 0x71: // delivery annotations
    case 0x78: // footer
      reader.skip();
      return;
    default:
      throw new Violation('it has a section of an unknown kind');
  }
}

function readAnnotation(command: Command): void {
  switch (reader.text()) {
    case 'iothub-enqueuedtime':
      command.enqueuedAt = reader.time();
      return;
    case 'x-opt-sequence-number':
      command.sequenceNumber = reader.count();
      return;
    case 'iothub-deliverycount':
      command.deliveryCount = reader.count() ?? 0;
      return;
    case 'x-opt-lock-token':
      command.lockToken = reader.text() ?? '';
      return;
    default:
      reader.skip();
  }
}

/** By its number in the properties section, 3.2.4. */
function readField(command: Command, field: number): void {
  switch (field) {
    case 0:
      command.messageId = reader.text();
      return;
    case 1:
      command.userId = reader.text();
      return;
    case 5:
      command.correlationId = reader.text();
      return;
    case 6:
      command.contentType = reader.text();
      return;
    case 7:
      command.contentEncoding = reader.text();
      return;
    case 8:
      command.expiresAt = reader.time();
      return;
    default:
      reader.skip();
  }
}

function readProperty(command: Command): void {
  const name = reader.text();
  switch (name) {
    case 'iothub-ack':
      command.ack = reader.text();
      return;
    case undefined:
    // What is the hub's own and not the sender's.
    case 'iothub-operation':
    case 'iothub-message-schema':
    case 'iothub-creation-time-utc':
      reader.skip();
      return;
    default: {
      const text = reader.text();
      if (text !== undefined) define(command.properties, name, text);
    }
  }
}

/** With all the fields that there are, so that to V8 all commands are one kind of object. */
function blankFor({ deviceId, moduleId }: DeviceId): Command {
  return {
    deviceId,
    moduleId,
    messageId: undefined,
    correlationId: undefined,
    userId: undefined,
    contentType: undefined,
    contentEncoding: undefined,
    expiresAt: undefined,
    ack: undefined,
    enqueuedAt: undefined,
    sequenceNumber: undefined,
    deliveryCount: 0,
    lockToken: '',
    properties: {},
    body: nothing,
  };
}

const nothing = Buffer.alloc(0);
