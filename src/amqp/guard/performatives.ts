import type { Kind } from './values.js';

/**
 * The performatives and what they are made of: AMQP 1.0 part 2 (transport) section 2.7, part 3 (messaging) sections
 * 3.4 and 3.5, part 5 (security) section 5.3.3. rhea takes any type in any field and computes with it, so types are
 * checked where it does; a field without one here is only handed on.
 */
export interface Composite {
  name: string;
  /** Of a performative: the layer it belongs to. */
  layer?: Layer;
  fields: readonly Field[];
}

export type Layer = 'amqp' | 'sasl';

export interface Field {
  name: string;
  required: boolean;
  /** A type, or descriptors of which one has to be there. */
  holds: Kind | 'anything' | readonly number[];
}

export type PerformativeName =
  | 'open'
  | 'begin'
  | 'attach'
  | 'flow'
  | 'transfer'
  | 'disposition'
  | 'detach'
  | 'end'
  | 'close'
  | 'sasl-mechanisms'
  | 'sasl-init'
  | 'sasl-challenge'
  | 'sasl-response'
  | 'sasl-outcome';

/** Where the fields are that the guard looks at. */
export const fieldOf = {
  open: { maxFrameSize: 2, idleTimeOut: 4 },
  begin: { remoteChannel: 0, nextOutgoingId: 1, incomingWindow: 2 },
  attach: { name: 0, handle: 1, role: 2, initialDeliveryCount: 9 },
  flow: {
    nextIncomingId: 0,
    incomingWindow: 1,
    nextOutgoingId: 2,
    handle: 4,
    deliveryCount: 5,
    linkCredit: 6,
    drain: 8,
    echo: 9,
  },
  transfer: {
    handle: 0,
    deliveryId: 1,
    deliveryTag: 2,
    messageFormat: 3,
    settled: 4,
    more: 5,
    aborted: 9,
  },
  disposition: { role: 0, first: 1, last: 2, settled: 3, state: 4 },
  detach: { handle: 0 },
  outcome: { code: 0 },
} as const;

/** Fields as `name:type`, with `!` behind one that has to be there. */
const texts: [descriptor: number, layer: Layer | undefined, name: string, fields: string][] = [
  [
    0x10,
    'amqp',
    'open',
    'container-id:string! hostname:string max-frame-size:uint channel-max:ushort idle-time-out:uint outgoing-locales incoming-locales offered-capabilities desired-capabilities properties:map',
  ],
  [
    0x11,
    'amqp',
    'begin',
    'remote-channel:ushort next-outgoing-id:uint! incoming-window:uint! outgoing-window:uint! handle-max:uint offered-capabilities desired-capabilities properties:map',
  ],
  [
    0x12,
    'amqp',
    'attach',
    'name:string! handle:uint! role:boolean! snd-settle-mode:ubyte rcv-settle-mode:ubyte source:source target:target unsettled:map incomplete-unsettled:boolean initial-delivery-count:uint max-message-size:ulong offered-capabilities desired-capabilities properties:map',
  ],
  [
    0x13,
    'amqp',
    'flow',
    'next-incoming-id:uint incoming-window:uint! next-outgoing-id:uint! outgoing-window:uint! handle:uint delivery-count:uint link-credit:uint available:uint drain:boolean echo:boolean properties:map',
  ],
  [
    0x14,
    'amqp',
    'transfer',
    'handle:uint! delivery-id:uint delivery-tag:binary message-format:uint settled:boolean more:boolean rcv-settle-mode:ubyte state:outcome resume:boolean aborted:boolean batchable:boolean',
  ],
  [
    0x15,
    'amqp',
    'disposition',
    'role:boolean! first:uint! last:uint settled:boolean state:outcome batchable:boolean',
  ],
  [0x16, 'amqp', 'detach', 'handle:uint! closed:boolean error:error'],
  [0x17, 'amqp', 'end', 'error:error'],
  [0x18, 'amqp', 'close', 'error:error'],
  [0x40, 'sasl', 'sasl-mechanisms', 'sasl-server-mechanisms!'],
  [0x41, 'sasl', 'sasl-init', 'mechanism:symbol! initial-response:binary hostname:string'],
  [0x42, 'sasl', 'sasl-challenge', 'challenge:binary!'],
  [0x43, 'sasl', 'sasl-response', 'response:binary!'],
  [0x44, 'sasl', 'sasl-outcome', 'code:ubyte! additional-data:binary'],
  [0x1d, undefined, 'error', 'condition:symbol description:string info:map'],
  [0x23, undefined, 'received', 'section-number:uint section-offset:ulong'],
  [0x24, undefined, 'accepted', ''],
  [0x25, undefined, 'rejected', 'error:error'],
  [0x26, undefined, 'released', ''],
  [0x27, undefined, 'modified', 'delivery-failed:boolean undeliverable-here:boolean message-annotations:map'],
  [
    0x28,
    undefined,
    'source',
    'address durable:uint expiry-policy:symbol timeout:uint dynamic:boolean dynamic-node-properties:map distribution-mode:symbol filter:map default-outcome outcomes capabilities',
  ],
  [
    0x29,
    undefined,
    'target',
    'address durable:uint expiry-policy:symbol timeout:uint dynamic:boolean dynamic-node-properties:map capabilities',
  ],
];

const composed: Record<string, readonly number[]> = {
  error: [0x1d],
  outcome: [0x23, 0x24, 0x25, 0x26, 0x27],
  source: [0x28],
  target: [0x29],
};

/** By descriptor. */
export const composites: readonly (Composite | undefined)[] = texts.reduce<Composite[]>(
  (table, [descriptor, layer, name, fields]) => {
    table[descriptor] = {
      name,
      ...(layer && { layer }),
      fields: fields.split(' ').filter(Boolean).map(fieldFrom),
    };
    return table;
  },
  [],
);

function fieldFrom(text: string): Field {
  const [, name = '', holds = 'anything', required] = /^([a-z-]+)(?::([a-z]+))?(!)?$/.exec(text) ?? [];
  return { name, holds: composed[holds] ?? (holds as Kind | 'anything'), required: required !== undefined };
}
