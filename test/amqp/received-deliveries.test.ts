import { once } from 'node:events';
import type { Socket } from 'node:net';

import { describe, expect, test } from 'vitest';

import { CommandLink, type DeliveredCommand } from '../../src/amqp/command-link.js';
import type { SettledAs } from '../../src/amqp/settle.js';
import { SenderLink } from '../../src/amqp/sender-link.js';
import { silentLog } from '../../src/log.js';
import * as wire from './guard-frames.js';
import {
  answers,
  clientFlight,
  fromHub,
  startClient,
  startHub,
  toHub,
  type Client,
  type Peer,
} from './guard-peer.js';
import { never } from './hub.js';

const performative = { flow: 0x13, disposition: 0x15, detach: 0x16 } as const;
/** What `startClient` lets the hub send at once. */
const firstCredit = 10;

/** The command link of a client, and what came on it. */
async function linkOf(client: Client) {
  await once(client.receiver, 'receiver_open');
  const link = new CommandLink(
    client.receiver.name,
    { over: never, outlet: client.guarded },
    { deviceId: 'dev-01' },
    silentLog,
  );
  const commands: DeliveredCommand[] = [];
  const waiting: (() => void)[] = [];
  link.onCommand((command) => {
    commands.push(command);
    for (const proceed of waiting.splice(0)) proceed();
  });
  return {
    link,
    commands,
    bodies: () => commands.map(({ command }) => command.body.toString()),
    arrived: async (count: number) => {
      while (commands.length < count) await new Promise<void>((resolve) => waiting.push(resolve));
      return commands;
    },
  };
}

/** A hub whose first answer the client has taken in before it sends `frames`. */
function hubThatSends(
  frames: Buffer[],
  { then, ...options }: Parameters<typeof answers>[0] & { then?: (peer: Peer) => unknown } = {},
) {
  return startHub(async (peer) => {
    peer.socket.write(answers(options));
    await ready(peer);
    peer.socket.write(Buffer.concat(frames));
    await then?.(peer);
  });
}

/** The client says that it is ready by granting one more. */
async function ready({ frames, socket }: Peer): Promise<void> {
  await until(() => flowsIn(frames()).length > 0, socket);
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

async function until(condition: () => boolean, socket: Socket): Promise<void> {
  while (!condition()) await once(socket, 'data');
}

/** Takes down what the client says until the first such frame, and leaves. */
async function hearUntil(code: number, { frames, socket }: Peer, told: Buffer[]): Promise<void> {
  await until(() => framesOf(frames(), code).length > 0, socket);
  told.push(...frames());
  socket.end();
}

function framesOf(frames: Buffer[], code: number): Buffer[] {
  return frames.filter((frame) => frame[10] === code);
}

function messageWith(body: string | Buffer): Buffer {
  return wire.message({ body: wire.described(0x75, wire.binary(body)) });
}

function delivery(id: number, body: string, more: Partial<wire.TransferFields> = {}): Buffer {
  return wire.transfer({ handle: fromHub, deliveryId: id, payload: messageWith(body), ...more });
}

/** The fields of a flow or disposition of ours that are numbers: behind `skip` bytes, five bytes each. */
function uintsIn(frame: Buffer, skip: number): number[] {
  const values: number[] = [];
  for (let at = skip; frame[at] === 0x70; at += 5) values.push(frame.readUInt32BE(at + 1));
  return values;
}

/** The flows that do not come from rhea, which writes no short list. */
function flowsIn(frames: Buffer[]) {
  return framesOf(frames, performative.flow)
    .filter((frame) => frame[11] === 0xc0)
    .map(flowIn);
}

function flowIn(frame: Buffer) {
  const [nextIncomingId, incomingWindow, nextOutgoingId, , handle, deliveryCount, linkCredit] = uintsIn(
    frame,
    14,
  );
  return { nextIncomingId, incomingWindow, nextOutgoingId, handle, deliveryCount, linkCredit };
}

function settledIn(frames: Buffer[]) {
  return framesOf(frames, performative.disposition).map((frame) => {
    expect([frame[20], frame[31]]).toEqual([0x41, 0x41]); // the receiver, settled
    return { range: uintsIn(frame, 21), state: frame.subarray(32).toString('latin1') };
  });
}

const code = { accepted: 0x24, rejected: 0x25, released: 0x26, modified: 0x27 } as const;
const modified: SettledAs = { outcome: 'modified', deliveryFailed: true, undeliverableHere: true };

describe('what is settled', () => {
  /** What the hub is told of so many deliveries that are settled in one turn. */
  async function toldOf(outcomes: SettledAs[], order = outcomes.map((_, n) => n)) {
    let told: ReturnType<typeof settledIn> = [];
    const frames = outcomes.map((_, id) => delivery(id, `no. ${id}`));
    await using hub = await hubThatSends(frames, {
      async then(peer) {
        await until(() => settledIn(peer.frames()).length > 0, peer.socket);
        peer.socket.write(wire.detach(toHub));
        await until(() => framesOf(peer.frames(), performative.detach).length > 0, peer.socket);
        told = settledIn(peer.frames());
        peer.socket.end();
      },
    });
    await using client = startClient(hub.port);
    const { link, arrived } = await linkOf(client);
    link.grant(outcomes.length);
    const commands = await arrived(outcomes.length);
    for (const n of order) expect(commands[n]!.settle(outcomes[n]!)).toBe(true);
    await client.ended;
    return told;
  }

  test('leaves in ranges of neighbours that have the same outcome, and never of others', async () => {
    const told = await toldOf([
      { outcome: 'accept' },
      { outcome: 'accept' },
      { outcome: 'reject', reason: 'too old' },
      { outcome: 'reject', reason: 'too old' },
      { outcome: 'reject', reason: 'too hot' },
      { outcome: 'release' },
      { outcome: 'accept' },
      modified,
      { outcome: 'reject' },
    ]);
    expect(told.map(({ range, state }) => [...range, state.charCodeAt(2)])).toEqual([
      [0, 1, code.accepted],
      [2, 3, code.rejected],
      [4, 4, code.rejected],
      [5, 5, code.released],
      [6, 6, code.accepted],
      [7, 7, code.modified],
      [8, 8, code.rejected],
    ]);
    expect(told[1]!.state).toContain('amqp:precondition-failed\xa1\x07too old');
    expect(told[2]!.state).toContain('too hot');
    expect(told[5]!.state.slice(-2)).toBe('\x41\x41');
  });

  test('out of order is told as it was settled', async () => {
    const accept: SettledAs = { outcome: 'accept' };
    const told = await toldOf([accept, accept, accept, accept], [2, 3, 1, 0]);
    expect(told.map(({ range }) => range)).toEqual([
      [2, 3],
      [1, 1],
      [0, 0],
    ]);
  });

  test('before the session ends is told before that', async () => {
    const told: Buffer[] = [];
    await using hub = await hubThatSends([delivery(0, 'go')], {
      then: (peer) => hearUntil(0x17, peer, told),
    });
    await using client = startClient(hub.port);
    const { link, arrived } = await linkOf(client);
    link.grant(1);
    const [command] = await arrived(1);
    client.receiver.session.close();
    command!.settle({ outcome: 'accept' });
    await client.ended;
    expect(told.slice(-2).map((frame) => frame[10])).toEqual([performative.disposition, 0x17]);
  });

  test('after our goodbye is not told, and said not to be', async () => {
    await using hub = await hubThatSends([delivery(0, 'go')]);
    await using client = startClient(hub.port);
    const { link, arrived } = await linkOf(client);
    link.grant(1);
    const [command] = await arrived(1);
    client.connection.close();
    await nextTurn();
    expect(command!.settle({ outcome: 'accept' })).toBe(false);
  });

  test('after the hub has ended the link is not told', async () => {
    const told: Buffer[] = [];
    await using hub = await hubThatSends([delivery(0, 'go'), wire.detach(fromHub)], {
      then: (peer) => hearUntil(0x18, peer, told),
    });
    await using client = startClient(hub.port);
    const { link, arrived } = await linkOf(client);
    link.grant(1);
    const [command] = await arrived(1);
    // Told by the same bytes as the command.
    await expect.poll(() => client.receiver.is_remote_open()).toBe(false);
    command!.settle({ outcome: 'accept' });
    client.connection.close();
    await client.ended;
    expect(settledIn(told)).toEqual([]);
  });
});

describe('a delivery', () => {
  test('in several transfers is handed on when it is whole, with the tag and the number of its first', async () => {
    const payload = messageWith('in pieces');
    const pieces = [payload.subarray(0, 1), Buffer.alloc(0), payload.subarray(1, 20), payload.subarray(20)];
    const transfers = pieces.map((piece, n) =>
      wire.transfer({
        handle: fromHub,
        ...(n === 0 ? { deliveryId: 0, tag: wire.binary('first') } : { tag: wire.nul, format: wire.nul }),
        more: n < pieces.length - 1,
        payload: piece,
      }),
    );
    await using hub = await hubThatSends([...transfers, delivery(1, 'behind it')], {
      async then(peer) {
        await until(() => settledIn(peer.frames()).length > 0, peer.socket);
        expect(settledIn(peer.frames())[0]!.range).toEqual([0, 1]);
        peer.socket.end();
      },
    });
    await using client = startClient(hub.port);
    const { link, arrived, bodies } = await linkOf(client);
    link.grant(1);
    const commands = await arrived(2);
    for (const { settle } of commands) settle({ outcome: 'accept' });
    expect(bodies()).toEqual(['in pieces', 'behind it']);
    expect(commands[0]!.command.lockToken).toBe(Buffer.from('first').toString('hex'));
    expect(link.credit).toBe(firstCredit + 1 - 2);
    expect(await client.ended).toBeUndefined();
  });

  test('that cannot be read or is in another format is rejected, and another one granted', async () => {
    const odd = [
      wire.transfer({ handle: fromHub, deliveryId: 0, payload: wire.string('no message') }),
      wire.transfer({ handle: fromHub, deliveryId: 1, format: wire.uint(7), payload: messageWith('x') }),
      wire.transfer({ handle: fromHub, deliveryId: 2, more: true, payload: Buffer.alloc(2_000) }),
      wire.transfer({ handle: fromHub, payload: Buffer.alloc(2_000) }),
    ];
    let told: ReturnType<typeof settledIn> = [];
    await using hub = await hubThatSends([...odd, delivery(3, 'readable')], {
      async then(peer) {
        await until(() => settledIn(peer.frames()).length === 3, peer.socket);
        told = settledIn(peer.frames());
      },
    });
    await using client = startClient(hub.port, { maxMessageBytes: 2_000 });
    const { link, arrived, bodies } = await linkOf(client);
    link.grant(1);
    await arrived(1);
    expect(bodies()).toEqual(['readable']);
    await expect.poll(() => told.length).toBe(3);
    const reasons = ['no section', 'a format of its own', 'larger than 2000 bytes'];
    for (const [n, reason] of reasons.entries()) {
      expect(told[n]).toMatchObject({ range: [n, n], state: expect.stringContaining(reason) as string });
    }
    expect(link.credit).toBe(firstCredit + 1 - 1);
  });

  const whole = messageWith('settled');
  test.each([
    ['wants no outcome', 1, [{ settled: true, payload: whole }]],
    [
      'wants no outcome any more when it is whole',
      1,
      [
        { more: true, payload: whole.subarray(0, 5) },
        { settled: true, more: true, payload: whole.subarray(5, 9) },
        { payload: whole.subarray(9) },
      ],
    ],
    ['is given up', 0, [{ more: true, payload: whole.subarray(0, 5) }, { aborted: true }]],
    ['is given up as it is begun', 0, [{ aborted: true }]],
  ])('that %s is told none, and counts', async (_title, count, parts: Partial<wire.TransferFields>[]) => {
    const transfers = parts.map((part) => wire.transfer({ handle: fromHub, deliveryId: 0, ...part }));
    let told: ReturnType<typeof settledIn> = [];
    await using hub = await hubThatSends([...transfers, delivery(1, 'not settled')], {
      async then(peer) {
        await until(() => settledIn(peer.frames()).length > 0, peer.socket);
        await nextTurn();
        told = settledIn(peer.frames());
        peer.socket.end();
      },
    });
    await using client = startClient(hub.port);
    const { link, arrived, bodies } = await linkOf(client);
    link.grant(1);
    for (const { settle } of await arrived(count + 1)) expect(settle({ outcome: 'accept' })).toBe(true);
    await client.ended;
    expect(bodies()).toEqual(count === 1 ? ['settled', 'not settled'] : ['not settled']);
    expect(told.map(({ range }) => range)).toEqual([[1, 1]]);
    expect(link.credit).toBe(firstCredit - count);
  });

  test('that the hub settles by itself is nothing that rhea hears of', async () => {
    const expired = wire.disposition({
      role: 'sender',
      first: 0,
      last: 1,
      state: wire.described(0x26, wire.list()),
    });
    await using hub = await hubThatSends([delivery(0, 'a'), delivery(1, 'b'), expired, delivery(2, 'c')]);
    await using client = startClient(hub.port);
    const { link, arrived, bodies } = await linkOf(client);
    link.grant(1);
    await arrived(3);
    expect(bodies()).toEqual(['a', 'b', 'c']);
    expect(client.messages).toEqual([]);
  });

  test.each([
    ['beyond the credit', Array.from({ length: firstCredit + 2 }, (_, id) => delivery(id, 'x')), 'credit'],
    ['out of sequence', [delivery(0, 'x'), delivery(2, 'x')], 'delivery 2 where 1 comes next'],
    [
      'before the last one is complete',
      [delivery(0, 'x', { more: true }), delivery(1, 'x')],
      'before the last one is complete',
    ],
    [
      'without a tag',
      [wire.transfer({ handle: fromHub, deliveryId: 0, tag: wire.nul, payload: messageWith('x') })],
      'without id or tag',
    ],
  ])('%s ends the connection', async (_title, frames, why) => {
    await using hub = await hubThatSends(frames);
    await using client = startClient(hub.port);
    const { link } = await linkOf(client);
    link.grant(1);
    expect(await client.ended).toMatchObject({
      code: 'protocol',
      message: expect.stringContaining(why) as string,
    });
  });
});

describe('a flow', () => {
  test('has the counts of the hub, go they round or not, and what we have sent ourselves', async () => {
    const last = 2 ** 32 - 1;
    let flows: ReturnType<typeof flowIn>[] = [];
    const frames = [0, 1, 2].map((n) => delivery((last - 1 + n) >>> 0, `no. ${n}`));
    await using hub = await hubThatSends(frames, {
      initialDeliveryCount: last - 1,
      nextOutgoingId: last,
      async then(peer) {
        await until(() => flowsIn(peer.frames()).length === 2, peer.socket);
        flows = flowsIn(peer.frames());
        await until(() => settledIn(peer.frames()).length > 0, peer.socket);
        expect(settledIn(peer.frames())[0]!.range).toEqual([last - 1, 0]);
        peer.socket.end();
      },
    });
    await using client = startClient(hub.port);
    const { link, arrived } = await linkOf(client);
    link.grant(5);
    const commands = await arrived(3);
    new SenderLink(client.sender.name, { over: never, fail: () => undefined, outlet: client.guarded }).ship(
      Buffer.alloc(1),
      0,
      { settled: () => undefined, lost: () => undefined },
    );
    link.grant(3);
    for (const { settle } of commands) settle({ outcome: 'accept' });
    expect(await client.ended).toBeUndefined();
    expect(flows).toEqual([
      {
        ...{ nextIncomingId: last, incomingWindow: 2048, nextOutgoingId: 0 },
        ...{ handle: fromHub, deliveryCount: last - 1, linkCredit: firstCredit + 5 },
      },
      {
        ...{ nextIncomingId: 2, incomingWindow: 2048, nextOutgoingId: 1 },
        ...{ handle: fromHub, deliveryCount: 1, linkCredit: firstCredit + 5 },
      },
    ]);
  });

  test('of the session says that there is room again, before the hub has none left', async () => {
    const payload = messageWith(Buffer.alloc(4_000, 'x'));
    const transfers = Array.from({ length: 1_200 }, (_, n) =>
      wire.transfer({
        handle: fromHub,
        ...(n === 0 ? { deliveryId: 0 } : {}),
        more: true,
        payload: payload.subarray(n, n + 1),
      }),
    );
    let flow: ReturnType<typeof flowIn> | undefined;
    await using hub = await hubThatSends(transfers, {
      async then(peer) {
        await until(() => flowsIn(peer.frames()).length === 2, peer.socket);
        flow = flowsIn(peer.frames())[1];
        peer.socket.end();
      },
    });
    await using client = startClient(hub.port);
    const { link } = await linkOf(client);
    link.grant(1);
    await client.ended;
    expect(flow).toMatchObject({ nextIncomingId: 1_025, incomingWindow: 2048, handle: undefined });
  });

  test('of rhea counts the transfers that went beside it', async () => {
    let nextIncomingId = 0;
    await using hub = await hubThatSends([delivery(0, 'a'), delivery(1, 'b'), delivery(2, 'c')], {
      async then(peer) {
        const before = clientFlight + 1;
        const frame = (await peer.until(before + 1))[before]!;
        expect([frame[10], frame[11], frame[20]]).toEqual([performative.flow, 0xd0, 0x70]);
        nextIncomingId = frame.readUInt32BE(21);
        peer.socket.end();
      },
    });
    await using client = startClient(hub.port);
    const { link, arrived } = await linkOf(client);
    link.grant(1);
    await arrived(3);
    // Whatever the reason: here because the credit of its own link changes.
    client.receiver.add_credit(1);
    await client.ended;
    expect(nextIncomingId).toBe(3);
  });

  test.each([
    ['that drains what nobody asked it to drain', true],
    ['that gives up credit', false],
  ])('of the hub %s is answered with the same credit again', async (_title, drain) => {
    const gone = firstCredit + 1;
    const givenUp = wire.flow({
      ...{ handle: fromHub, drain },
      ...{ deliveryCount: wire.uint(gone), linkCredit: wire.uint(0) },
    });
    let flows: ReturnType<typeof flowIn>[] = [];
    await using hub = await hubThatSends([givenUp], {
      async then(peer) {
        await until(() => flowsIn(peer.frames()).length === 2, peer.socket);
        flows = flowsIn(peer.frames());
        peer.socket.write(delivery(0, 'still here'));
      },
    });
    await using client = startClient(hub.port);
    const { link, arrived } = await linkOf(client);
    link.grant(1);
    await arrived(1);
    expect(flows[1]).toMatchObject({ deliveryCount: gone, linkCredit: firstCredit + 1 });
    expect(link.credit).toBe(firstCredit);
  });

  test('of the hub is answered when it wants to know, and not when it knows', async () => {
    const payload = messageWith('in pieces');
    const state = { handle: fromHub, linkCredit: wire.uint(firstCredit) };
    const frames = [
      wire.flow({ ...state, deliveryCount: wire.nul }),
      wire.transfer({ handle: fromHub, deliveryId: 0, more: true, payload: payload.subarray(0, 5) }),
      // Some count a delivery as it begins, and some when it is whole.
      wire.flow({ ...state, deliveryCount: wire.uint(1), nextOutgoingId: 1 }),
      wire.flow({ ...state, deliveryCount: wire.uint(0), nextOutgoingId: 1 }),
      wire.transfer({ handle: fromHub, payload: payload.subarray(5) }),
      wire.flow({ ...state, deliveryCount: wire.uint(1), nextOutgoingId: 2, echo: true }),
    ];
    let flows: ReturnType<typeof flowIn>[] = [];
    await using hub = await hubThatSends(frames, {
      async then(peer) {
        await until(() => flowsIn(peer.frames()).length === 2, peer.socket);
        await nextTurn();
        flows = flowsIn(peer.frames()).slice(1);
        peer.socket.end();
      },
    });
    await using client = startClient(hub.port);
    const { link } = await linkOf(client);
    link.grant(1);
    expect(await client.ended).toBeUndefined();
    expect(flows).toMatchObject([{ nextIncomingId: 2, deliveryCount: 1, linkCredit: firstCredit }]);
  });
});
