/**
 * AMQP frames made by hand, so that they can be wrong in any way, and independent of rhea.
 */

export const amqpHeader = Buffer.from('AMQP\x00\x01\x00\x00', 'latin1');
export const saslHeader = Buffer.from('AMQP\x03\x01\x00\x00', 'latin1');

/** Bytes written as hex, spaces allowed. */
export function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(' ', ''), 'hex');
}

export const nul = hex('40');

export function uint(value: number): Buffer {
  return Buffer.concat([hex('70'), uint32(value)]);
}

export function ushort(value: number): Buffer {
  return Buffer.from([0x60, value >> 8, value & 255]);
}

export function bool(value: boolean): Buffer {
  return hex(value ? '41' : '42');
}

export function string(value: string): Buffer {
  return sized(0xb1, Buffer.from(value));
}

export function symbol(value: string): Buffer {
  return sized(0xb3, Buffer.from(value, 'latin1'));
}

export function binary(value: Buffer | string): Buffer {
  return sized(0xb0, Buffer.from(value as string));
}

export function list(...items: Buffer[]): Buffer {
  return compound(0xd0, items);
}

/** Keys and values in turn. */
export function map(...items: Buffer[]): Buffer {
  return compound(0xd1, items);
}

export function described(descriptor: number | Buffer, value: Buffer): Buffer {
  return Buffer.concat([
    hex('00'),
    typeof descriptor === 'number' ? Buffer.from([0x53, descriptor]) : descriptor,
    value,
  ]);
}

/** A list or map that claims `count` elements in `size` bytes, whatever it holds. */
export function claiming({
  code,
  size,
  count,
  content,
}: {
  code: number;
  size: number;
  count: number;
  content: Buffer;
}): Buffer {
  return Buffer.concat([Buffer.from([code]), uint32(size), uint32(count), content]);
}

/** `value` inside of `depth` lists. */
export function nested(depth: number, value: Buffer): Buffer {
  let nest = value;
  for (let i = 0; i < depth; i++) nest = list(nest);
  return nest;
}

export interface FrameParts {
  channel?: number;
  payload?: Buffer;
  /** As the header says: true values unless given. */
  size?: number;
  dataOffset?: number;
  type?: number;
}

export function frame(
  body: Buffer,
  { channel = 0, payload = Buffer.alloc(0), size, dataOffset = 2, type = 0 }: FrameParts = {},
): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(8), body, payload]);
  bytes.writeUInt32BE(size ?? bytes.length, 0);
  bytes.writeUInt8(dataOffset, 4);
  bytes.writeUInt8(type, 5);
  bytes.writeUInt16BE(channel, 6);
  return bytes;
}

export const heartbeat = frame(Buffer.alloc(0));

export function open(...fields: Buffer[]): Buffer {
  return frame(described(0x10, list(string('hostile-hub'), ...fields)));
}

export function begin({
  remoteChannel = ushort(0),
  channel = 0,
  nextOutgoingId = 0,
  incomingWindow = 2048,
} = {}): Buffer {
  return frame(described(0x11, list(remoteChannel, uint(nextOutgoingId), uint(incomingWindow), uint(2048))), {
    channel,
  });
}

export const source = described(0x28, list(string('there')));
export const target = described(0x29, list(string('there')));

export interface AttachFields {
  name: string;
  handle: number;
  /** The role of who sends the frame. */
  role: 'sender' | 'receiver';
  channel?: number;
  initialDeliveryCount?: number;
}

export function attach({ name, handle, role, channel = 0, initialDeliveryCount = 0 }: AttachFields): Buffer {
  const fields = [
    string(name),
    uint(handle),
    bool(role === 'receiver'),
    hex('5002'),
    hex('5000'),
    source,
    target,
    nul,
    nul,
    uint(initialDeliveryCount),
  ];
  return frame(described(0x12, list(...fields)), { channel });
}

export interface FlowFields {
  handle?: number;
  deliveryCount?: Buffer;
  linkCredit?: Buffer;
  drain?: boolean;
  echo?: boolean;
  channel?: number;
  nextIncomingId?: number;
  incomingWindow?: number;
  nextOutgoingId?: number;
}

export function flow({
  handle,
  deliveryCount = uint(0),
  linkCredit = uint(100),
  drain = false,
  echo = false,
  channel = 0,
  nextIncomingId = 0,
  incomingWindow = 2048,
  nextOutgoingId = 0,
}: FlowFields): Buffer {
  const session = [uint(nextIncomingId), uint(incomingWindow), uint(nextOutgoingId), uint(2048)];
  const link =
    handle === undefined ? [] : [uint(handle), deliveryCount, linkCredit, uint(0), bool(drain), bool(echo)];
  return frame(described(0x13, list(...session, ...link)), { channel });
}

export interface TransferFields {
  handle: number;
  deliveryId?: Buffer | number;
  tag?: Buffer;
  format?: Buffer;
  settled?: boolean;
  more?: boolean;
  aborted?: boolean;
  channel?: number;
  payload?: Buffer;
}

export function transfer({
  handle,
  deliveryId = nul,
  tag = binary('tag'),
  format = uint(0),
  settled = false,
  more = false,
  aborted = false,
  channel = 0,
  payload = Buffer.alloc(0),
}: TransferFields): Buffer {
  const id = typeof deliveryId === 'number' ? uint(deliveryId) : deliveryId;
  const fields = [
    uint(handle),
    id,
    tag,
    format,
    bool(settled),
    bool(more),
    nul,
    nul,
    bool(false),
    bool(aborted),
  ];
  return frame(described(0x14, list(...fields)), { channel, payload });
}

export const accepted = described(0x24, list());

export interface DispositionFields {
  role: 'sender' | 'receiver';
  first: number;
  last?: Buffer | number;
  state?: Buffer;
  settled?: boolean;
  channel?: number;
}

export function disposition({
  role,
  first,
  last = nul,
  state = accepted,
  settled = true,
  channel = 0,
}: DispositionFields): Buffer {
  const fields = [
    bool(role === 'receiver'),
    uint(first),
    typeof last === 'number' ? uint(last) : last,
    bool(settled),
    state,
  ];
  return frame(described(0x15, list(...fields)), { channel });
}

export function detach(handle: number, channel = 0): Buffer {
  return frame(described(0x16, list(uint(handle), bool(true))), { channel });
}

export function end(channel = 0): Buffer {
  return frame(described(0x17, list()), { channel });
}

export function close(): Buffer {
  return frame(described(0x18, list()));
}

/** A message with this body section, or with a data section. */
export function message({ body = described(0x75, binary('hello')), annotations = map() } = {}): Buffer {
  return Buffer.concat([described(0x72, annotations), body]);
}

function sized(code: number, content: Buffer): Buffer {
  return Buffer.concat([Buffer.from([code]), uint32(content.length), content]);
}

function compound(code: number, items: Buffer[]): Buffer {
  const content = Buffer.concat(items);
  return claiming({ code, size: content.length + 4, count: items.length, content });
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0, 0);
  return bytes;
}
