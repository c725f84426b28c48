import fc from 'fast-check';
import { expect, test } from 'vitest';

import { CommandLink, type DeliveredCommand } from '../../src/amqp/command-link.js';
import { guard } from '../../src/amqp/guard.js';
import { silentLog } from '../../src/log.js';
import * as wire from './guard-frames.js';
import { clientOf, limits, type Client } from './guard-peer.js';
import { never } from './hub.js';
import { StrictHub, type Sending } from './strict-hub.js';

const outcomes = { accept: 'accepted', reject: 'rejected', release: 'released' } as const;

const sending: fc.Arbitrary<Sending> = fc.record({
  transfers: fc.integer({ min: 1, max: 4 }),
  settledBy: fc.integer({ min: 0, max: 30 }),
  isGivenUp: fc.integer({ max: 9, min: 0 }).map((n) => n === 0),
  countsEarly: fc.boolean(),
});

/** What the hub says in one piece, and what the client does then. */
const turns = fc.array(
  fc.record({
    hub: fc.array(
      fc.oneof(
        { weight: 6, arbitrary: sending.map((how) => ({ is: 'delivers', how }) as const) },
        fc.boolean().map((echo) => ({ is: 'tells', echo }) as const),
        fc.integer({ min: 1, max: 9 }).map((by) => ({ is: 'passes', by }) as const),
      ),
      { maxLength: 8 },
    ),
    settles: fc.array(
      fc.record({ one: fc.nat({ max: 20 }), outcome: fc.constantFrom('accept', 'reject', 'release') }),
      { maxLength: 8 },
    ),
    grants: fc.nat({ max: 5 }),
  }),
  { maxLength: 40 },
);

const counts = fc.record({
  deliveryId: fc.constantFrom(0, 2 ** 31 - 2, 2 ** 31 + 5, 2 ** 32 - 4),
  deliveryCount: fc.constantFrom(0, 2 ** 31 - 2, 2 ** 32 - 3),
  transferId: fc.constantFrom(0, 1, 2 ** 31 - 3, 2 ** 32 - 5),
});

test('whatever a hub does that it may, each command comes once and is told its outcome once, and no credit is lost', async () => {
  await fc.assert(
    fc.asyncProperty(counts, turns, async (from, all) => {
      const hub = new StrictHub(from);
      await using client = clientOf(guard(hub.socket, limits), (connected) => {
        process.nextTick(connected);
      });
      const { link, inHand, arrived } = await commandLink(client, hub);
      const sent: string[] = [];
      /** By delivery id, of those that want one. */
      const wanted = new Map<number, string[]>();

      for (const { hub: steps, settles, grants } of [quietTurn, ...all]) {
        for (const step of steps) {
          if (step.is === 'tells') hub.tell(step.echo);
          else if (step.is === 'passes') hub.passOver(step.by);
          else {
            const { isGivenUp, settledBy, transfers } = step.how;
            const id = hub.nextDeliveryId;
            const payload = wire.message({ body: wire.described(0x75, wire.binary(String(id))) });
            if (!hub.deliver(payload, step.how) || isGivenUp) continue;
            sent.push(String(id));
            if (settledBy >= transfers) wanted.set(id, []);
          }
        }
        hub.speak();
        for (const { one, outcome } of settles) {
          const [taken] = inHand.splice(one, 1);
          if (taken === undefined) continue;
          expect(taken.settle({ outcome })).toBe(true);
          wanted.get(Number(taken.command.body.toString()))?.push(outcomes[outcome]);
        }
        link.grant(grants);
        await nextTurn();
        hub.hear();
        expect(link.credit).toBe(hub.credit);
      }
      expect(arrived).toEqual(sent);
      for (const [id, outcome] of wanted) expect([id, hub.told.get(id) ?? []]).toEqual([id, outcome]);
      const settled = [...wanted.values()].filter((outcome) => outcome.length > 0);
      expect(hub.told.size).toBe(settled.length);
    }),
    { numRuns: 200 },
  );
});

/** Attached, with a credit of eleven. */
async function commandLink(client: Client, hub: StrictHub) {
  await nextTurn();
  hub.open();
  await nextTurn();
  const scope = { over: never, outlet: client.guarded };
  const link = new CommandLink(client.receiver.name, scope, { deviceId: 'dev-01' }, silentLog);
  const inHand: DeliveredCommand[] = [];
  const arrived: string[] = [];
  link.onCommand((delivered) => {
    inHand.push(delivered);
    arrived.push(delivered.command.body.toString());
  });
  link.grant(1);
  return { link, inHand, arrived };
}

const quietTurn = { hub: [], settles: [], grants: 0 };

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
