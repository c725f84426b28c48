import type { Command, DeviceId } from '../model.js';
import { readValue } from './guard/describe.js';
import type { ReceivedDelivery } from './guard/received-deliveries.js';
import { describedCode, typeOf } from './guard/values.js';
import { define } from './messages.js';
import { ValueReader } from './value-reader.js';

/**
 * Reads a delivered command, which the guard found to be a message. Annotations of a wrong type are ignored, as the C#
 * SDK does. AMQP 1.0 part 3 (messaging), section 3.2.
 *
 * By hand, as every command goes through here: rhea makes an object of each value first, of which most are for nobody.
 */
export function decodeCommand(delivery: ReceivedDelivery, identity: DeviceId): Command {
  const command = blankFor(identity);
  /** Joined at the end: a body can be in very many pieces. */
  const body: Buffer[] = [];
  reader.over(delivery.bytes, delivery.start);
  while (reader.at < delivery.end) readSection(command, body, delivery.bytes);
  command.body = body.length === 1 && body[0] !== undefined ? body[0] : Buffer.concat(body);
  if (command.lockToken === '') command.lockToken = delivery.tag.toString('hex');
  return command;
}

const reader = new ValueReader();

function readSection(command: Command, body: Buffer[], bytes: Buffer): void {
  switch (reader.descriptor()) {
    case 0x72:
      for (let left = reader.enter(); left > 0; left -= 2) readAnnotation(command);
      return;
    case 0x73: {
      const count = reader.enter();
      for (let field = 0; field < count; field++) readField(command, field);
      return;
    }
    case 0x74:
      for (let left = reader.enter(); left > 0; left -= 2) readProperty(command);
      return;
    case 0x75:
      body.push(reader.binary());
      return;
    case 0x76:
    case 0x77:
      body.push(readOtherBody(bytes));
      return;
    default: // header, delivery annotations, footer
      reader.skip();
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

/** A body that is no data: a text as UTF-8, binary as it is, anything else as JSON. */
function readOtherBody(bytes: Buffer): Buffer {
  const at = reader.at;
  const code = bytes.readUInt8(at);
  const kind = code === describedCode ? 'described' : typeOf(code).kind;
  if (kind === 'binary') return reader.binary();
  if (kind === 'string') return Buffer.from(reader.text() ?? '');
  reader.skip();
  return kind === 'null' ? nothing : Buffer.from(JSON.stringify(readValue(bytes, at)));
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
