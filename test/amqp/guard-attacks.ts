import {
  accepted,
  amqpHeader,
  attach,
  begin,
  binary,
  bool,
  claiming,
  close,
  described,
  detach,
  disposition,
  end,
  flow,
  frame,
  hex,
  list,
  map,
  message,
  nested,
  nul,
  open,
  saslHeader,
  source,
  string,
  symbol,
  transfer,
  uint,
  ushort,
} from './guard-frames.js';
import { answers, fromHub, toHub } from './guard-peer.js';

export interface Attack {
  name: string;
  bytes: Buffer;
  /** What the error has to say. */
  says: RegExp;
}

/** Spells `toString`, which rhea would find in any object. */
const toStringAsUlong = hex('80 746f 5374 7269 6e67');
const arrayBomb = hex('f0 00000005 ffffffff 40');
const good = (deliveryId: number, handle = fromHub) => transfer({ handle, deliveryId, payload: message() });
const openWith = (...fields: Buffer[]) => Buffer.concat([amqpHeader, open(...fields)]);
const openWithProperties = (properties: Buffer) =>
  openWith(nul, nul, nul, nul, nul, nul, nul, nul, properties);
const performative = (descriptor: number, ...fields: Buffer[]) =>
  frame(described(descriptor, list(...fields)));

/** What a peer can say instead of the answers to the client's first flight. */
export const badStarts: Attack[] = [
  {
    name: 'an HTTP answer',
    bytes: Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
    says: /no AMQP peer: an HTTP server answered/,
  },
  {
    name: 'a TLS alert',
    bytes: hex('15 0303 0002 0228'),
    says: /no AMQP peer: it answered with a TLS alert/,
  },
  { name: 'a TLS hello', bytes: hex('16 0303 0200 0100'), says: /it speaks TLS inside of this connection/ },
  { name: 'an MQTT broker', bytes: hex('20 02 00 05'), says: /an MQTT broker answered/ },
  { name: 'an SSH server', bytes: Buffer.from('SSH-2.0-OpenSSH_9.2\r\n'), says: /an SSH server answered/ },
  { name: 'noise', bytes: hex('00 01 02 03 04 05 06 07'), says: /its answer is of no protocol known here/ },
  {
    name: 'AMQP 0-9-1',
    bytes: Buffer.from('AMQP\x00\x00\x09\x01', 'latin1'),
    says: /it speaks AMQP 0\.9\.1/,
  },
  { name: 'a SASL header that nobody asked for', bytes: saslHeader, says: /it insists on SASL/ },
  {
    name: 'begin before open',
    bytes: Buffer.concat([amqpHeader, begin()]),
    says: /begin on channel 0: it came before open/,
  },
  {
    name: 'open twice',
    bytes: Buffer.concat([amqpHeader, open(), open()]),
    says: /open on channel 0: it came before/,
  },
  {
    name: 'frames of at most 51 bytes, which rhea cuts messages into for ever',
    bytes: openWith(nul, uint(51)),
    says: /it allows frames of 51 bytes, where 512 is the least/,
  },
  {
    name: 'a heartbeat every millisecond',
    bytes: openWith(nul, nul, nul, uint(1)),
    says: /it wants to hear from us every 1 ms/,
  },
  {
    name: 'a string as the largest frame',
    bytes: openWith(nul, string('9')),
    says: /max-frame-size is a string where uint belongs/,
  },
  {
    name: 'properties with an array of 2^32-1 nulls',
    bytes: openWithProperties(map(symbol('x'), arrayBomb)),
    says: /an array claims 4294967295 elements in 0 bytes/,
  },
  {
    name: 'properties with an array of 2^32-1 empty lists',
    bytes: openWithProperties(map(symbol('x'), hex('f0 00000005 ffffffff 45'))),
    says: /an array claims 4294967295 elements/,
  },
  {
    name: 'arrays in an array that claim 60 000 nulls each',
    bytes: openWithProperties(map(symbol('x'), manyArrays())),
    says: /an array claims 60000 elements in 0 bytes/,
  },
  {
    name: 'properties nested 3 000 deep',
    bytes: openWithProperties(map(symbol('x'), nested(3000, nul))),
    says: /values are nested more than 32 deep/,
  },
  {
    name: 'descriptors nested 10 000 deep',
    bytes: openWithProperties(map(symbol('x'), Buffer.concat([Buffer.alloc(10_000), nul]))),
    says: /there is no AMQP type 0x00/,
  },
  {
    name: 'a map with the key __proto__',
    bytes: openWithProperties(map(symbol('__proto__'), map())),
    says: /the key of a map is __proto__/,
  },
  {
    name: 'a map with a list as the key',
    bytes: openWithProperties(map(list(), nul)),
    says: /the key of a map is a list/,
  },
  {
    name: 'a map with half a pair',
    bytes: openWithProperties(map(symbol('x'))),
    says: /a map has a key without a value/,
  },
  {
    name: 'a descriptor named toString',
    bytes: openWithProperties(map(symbol('x'), described(symbol('toString'), nul))),
    says: /a descriptor has the name of a method/,
  },
  {
    name: 'a descriptor whose bytes spell toString',
    bytes: openWithProperties(map(symbol('x'), described(toStringAsUlong, nul))),
    says: /a descriptor has more than 53 bits/,
  },
  {
    name: 'a list as a descriptor',
    bytes: openWithProperties(map(symbol('x'), described(list(), nul))),
    says: /a descriptor is a list/,
  },
  {
    name: 'an unknown type',
    bytes: openWithProperties(map(symbol('x'), hex('46'))),
    says: /there is no AMQP type 0x46/,
  },
];

/** What a peer can say once all is open. */
export const attacks: Attack[] = [
  { name: 'a frame of 0 bytes', bytes: hex('00000000 0200 0000'), says: /a frame of 0 bytes is too small/ },
  { name: 'a frame of 7 bytes', bytes: hex('00000007 0200 0000'), says: /a frame of 7 bytes is too small/ },
  {
    name: 'a frame of 4 GiB, and then 40 MiB of it',
    bytes: Buffer.concat([hex('ffffffff 0200 0000'), Buffer.alloc(40 * 2 ** 20)]),
    says: /a frame of 4294967295 bytes is larger than the 65536 that we allow/,
  },
  {
    name: 'a data offset inside of the header',
    bytes: frame(nul, { dataOffset: 1 }),
    says: /the data offset points into the frame header/,
  },
  {
    name: 'a data offset behind the frame',
    bytes: frame(nul, { dataOffset: 255 }),
    says: /the data offset points behind the frame/,
  },
  { name: 'an unknown frame type', bytes: frame(nul, { type: 2 }), says: /there is no frame type 2/ },
  {
    name: 'a SASL frame',
    bytes: frame(described(0x44, list(hex('5000'))), { type: 1 }),
    says: /it is of another layer than the connection/,
  },
  {
    name: 'open in a SASL frame',
    bytes: frame(described(0x10, list(string('x'))), { type: 1 }),
    says: /no performative of the SASL layer/,
  },
  { name: 'a null as the performative', bytes: frame(nul), says: /it starts with no performative/ },
  { name: 'an unknown performative', bytes: performative(0x19), says: /no performative of the AMQP layer/ },
  {
    name: 'an outcome as the performative',
    bytes: performative(0x24),
    says: /no performative of the AMQP layer/,
  },
  { name: 'a performative that is a map', bytes: frame(described(0x13, map())), says: /a list is missing/ },
  {
    name: 'a performative with 5 fields too many',
    bytes: performative(0x17, nul, nul, nul, nul, nul, nul),
    says: /end has 6 fields of at most 1/,
  },
  {
    name: 'a list that claims 30 million fields',
    bytes: frame(described(0x13, claiming({ code: 0xd0, size: 5, count: 30_000_000, content: nul }))),
    says: /a list claims 30000000 elements in 1 bytes/,
  },
  {
    name: 'a list that claims 4 GiB',
    bytes: frame(described(0x13, claiming({ code: 0xd0, size: 0xffffffff, count: 1, content: nul }))),
    says: /a list of 4294967295 bytes does not fit in/,
  },
  {
    name: 'a list with more in it than it counts',
    bytes: frame(described(0x16, claiming({ code: 0xd0, size: 6, count: 1, content: hex('43 43') }))),
    says: /the elements of a list do not fill its size/,
  },
  {
    name: 'a list with less in it than it counts',
    bytes: frame(described(0x16, claiming({ code: 0xd0, size: 8, count: 2, content: hex('a1 02 6161') }))),
    says: /handle is a string where uint belongs/,
  },
  {
    name: 'a string that reaches beyond the frame',
    bytes: performative(0x12, hex('b1 7fffffff')),
    says: /a string of 2147483647 bytes does not fit in/,
  },
  { name: 'a field that is cut off', bytes: performative(0x16, hex('70 0000')), says: /a value is cut off/ },
  {
    name: 'a payload behind a flow',
    bytes: Buffer.concat([
      frame(described(0x13, list(nul, uint(1), uint(1), uint(1))), { payload: hex('40') }),
    ]),
    says: /flow on channel 0: bytes follow it/,
  },
  { name: 'a missing field', bytes: performative(0x16), says: /detach on channel 0: handle is missing/ },
  {
    name: 'a session of its own',
    bytes: begin({ remoteChannel: nul, channel: 1 }),
    says: /it begins a session that we did not ask for/,
  },
  { name: 'a session twice', bytes: begin({ channel: 1 }), says: /it answers no begin of ours/ },
  {
    name: 'a session on a channel that we do not have',
    bytes: begin({ channel: 1, remoteChannel: ushort(7) }),
    says: /it answers no begin of ours/,
  },
  {
    name: 'a link of its own',
    bytes: attach({ name: 'mine', handle: 9, role: 'sender' }),
    says: /it answers no attach of ours/,
  },
  {
    name: 'a link named constructor',
    bytes: attach({ name: 'constructor', handle: 9, role: 'sender' }),
    says: /it answers no attach of ours/,
  },
  {
    name: 'a link twice',
    bytes: attach({ name: 'from the hub', handle: 9, role: 'sender' }),
    says: /it answers no attach of ours/,
  },
  {
    name: 'an attach with an unknown terminus',
    bytes: performative(0x12, string('x'), uint(9), bool(true), nul, nul, described(0x30, list())),
    says: /source is of a kind that does not belong there/,
  },
  {
    name: 'an unknown channel',
    bytes: flow({ channel: 3 }),
    says: /flow on channel 3: no session has this channel/,
  },
  { name: 'an unknown handle', bytes: good(0, 77), says: /transfer on channel 0: no link has this handle/ },
  { name: 'a detach of an unknown link', bytes: detach(77), says: /no link has this handle/ },
  {
    name: 'a link that is detached twice',
    bytes: Buffer.concat([detach(fromHub), detach(fromHub)]),
    says: /no link has this handle/,
  },
  {
    name: 'a transfer after the detach',
    bytes: Buffer.concat([detach(fromHub), good(0)]),
    says: /no link has this handle/,
  },
  {
    name: 'a flow after the end',
    bytes: Buffer.concat([end(), flow({})]),
    says: /no session has this channel/,
  },
  {
    name: 'a transfer on a link that we send on',
    bytes: good(0, toHub),
    says: /it comes on a link that we send on/,
  },
  {
    name: 'transfers beyond the credit',
    bytes: Buffer.concat(Array.from({ length: 11 }, (_, id) => good(id))),
    says: /it goes beyond the credit of its link/,
  },
  {
    name: 'a delivery out of sequence',
    bytes: Buffer.concat([good(0), good(2)]),
    says: /it is delivery 2 where 1 comes next/,
  },
  {
    name: 'a delivery without an id',
    bytes: transfer({ handle: fromHub, payload: message() }),
    says: /it starts a delivery without id or tag/,
  },
  {
    name: 'a delivery that starts inside of another',
    bytes: Buffer.concat([
      transfer({ handle: fromHub, deliveryId: 0, more: true, payload: hex('00') }),
      good(1),
    ]),
    says: /it starts a delivery before the last one is complete/,
  },
  {
    name: 'a delivery of an unknown format in several transfers',
    bytes: transfer({ handle: fromHub, deliveryId: 0, more: true, format: uint(7), payload: hex('00') }),
    says: /in several transfers that is no AMQP message/,
  },
  {
    name: 'a delivery that is aborted and goes on',
    bytes: transfer({ handle: fromHub, deliveryId: 0, more: true, aborted: true }),
    says: /it is aborted and has more to come/,
  },
  {
    name: 'a disposition of 2^32 deliveries',
    bytes: disposition({ role: 'receiver', first: 0, last: 0xffffffff }),
    says: /it settles 4294967296 deliveries where 256 at most are outstanding/,
  },
  {
    name: 'a disposition of 2^32 of its own deliveries',
    bytes: disposition({ role: 'sender', first: 0, last: 0xffffffff }),
    says: /it settles 4294967296 deliveries/,
  },
  {
    name: 'a disposition that ends before it starts',
    bytes: disposition({ role: 'receiver', first: 10, last: 5 }),
    says: /it settles 4294967292 deliveries/,
  },
  {
    name: 'an outcome that is none',
    bytes: disposition({ role: 'receiver', first: 0, state: described(0x34, list(binary('x'), accepted)) }),
    says: /state is of a kind that does not belong there/,
  },
  {
    name: 'an outcome that is a number',
    bytes: disposition({ role: 'receiver', first: 0, state: uint(1) }),
    says: /state is not a described list/,
  },
  {
    name: 'a link flow without credit',
    bytes: flow({ handle: toHub, linkCredit: nul }),
    says: /it says nothing of the credit of its link/,
  },
  {
    name: 'a drain of 2^32-1 credit',
    bytes: flow({ handle: toHub, linkCredit: uint(0xffffffff), drain: true }),
    says: /it drains an absurd credit/,
  },
  {
    name: 'an error that is a map',
    bytes: performative(0x18, described(0x1d, map())),
    says: /a list is missing/,
  },
  {
    name: 'an error that is no error',
    bytes: performative(0x18, source),
    says: /error is of a kind that does not belong there/,
  },
  {
    name: 'an error whose condition is a number',
    bytes: performative(0x17, described(0x1d, list(uint(1)))),
    says: /condition is a uint where symbol belongs/,
  },
];

/** Every attack, as the whole of what the peer says. */
export const conversations: Attack[] = [
  ...badStarts,
  ...attacks.map((attack) => ({ ...attack, bytes: Buffer.concat([answers(), attack.bytes]) })),
];

/** After its close a peer is not heard, whatever it says. */
export const afterClose = Buffer.concat([answers(), close(), hex('00000000')]);

/** An array of arrays: four bytes of size and count each, and one that makes 60 000 nulls of it. */
function manyArrays(): Buffer {
  const inner = hex('00000005 0000ea60 40');
  const count = 1000;
  const content = Buffer.concat([hex('f0'), ...Array.from({ length: count }, () => inner)]);
  return claiming({ code: 0xf0, size: content.length + 4, count, content });
}
