/**
 * What the guard costs: ordinary traffic through rhea with and without it, in one process and without a network.
 *
 *     node --import ./test/typescript.js test/bench/guard.ts [ROUNDS]
 *
 * Prints microseconds of CPU per message, bare and guarded (medians of rounds taken in turn), and their ratio.
 */
import '../../src/no-debug.js';

import { Duplex } from 'node:stream';

import rhea, { type ConnectionOptions, type EventContext, type Receiver, type Sender } from 'rhea';

import { guard, type GuardedSocket } from '../../src/amqp/guard.js';
import * as wire from '../amqp/guard-frames.js';
import { answers, fromHub, limits, toHub } from '../amqp/guard-peer.js';

interface Work {
  name: string;
  count: number;
  run: (link: { sender: Sender; receiver: Receiver; socket: PeerSocket }, count: number) => Promise<void>;
}

const chunkBytes = 16 * 1024; // what TLS delivers at once

const works: Work[] = [
  { name: 'telemetry of 100 bytes, 100 in flight, each accepted', count: 40_000, run: telemetry },
  { name: 'commands of 200 bytes', count: 40_000, run: (link, count) => commands(link, count, 200) },
  { name: 'commands of 1 KiB', count: 40_000, run: (link, count) => commands(link, count, 1024) },
  { name: 'commands of 60 KiB', count: 3_000, run: (link, count) => commands(link, count, 60 * 1024) },
];

/** The peer's end: what rhea writes is shown to `onFrames`, what `arrive` is given reaches rhea in chunks. */
class PeerSocket extends Duplex {
  readonly #written: Buffer[] = [];
  onFrames: (bytes: Buffer) => void = () => undefined;
  override _read(): void {
    /* `arrive` does it */
  }
  /** All writes of a turn are answered together, so that rhea alone is not charged for writing each frame alone. */
  override _write(bytes: Buffer, _encoding: string, done: () => void): void {
    if (this.#written.length === 0) {
      setImmediate(() => {
        this.onFrames(Buffer.concat(this.#written.splice(0)));
      });
    }
    this.#written.push(bytes);
    done();
  }
  arrive(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at += chunkBytes)
      this.emit('data', Buffer.from(bytes.subarray(at, at + chunkBytes)));
  }
}

async function telemetry(
  { sender, socket }: { sender: Sender; socket: PeerSocket },
  count: number,
): Promise<void> {
  const payload = rhea.message.encode({ body: rhea.message.data_section(Buffer.alloc(100)) });
  let [sent, settled, arrived] = [0, 0, 0];
  await new Promise<void>((resolve) => {
    socket.onFrames = (bytes) => {
      const first = arrived;
      const headers = bytes.indexOf('AMQP') === 0 ? wire.amqpHeader.length : 0;
      for (let at = headers; at < bytes.length; at += bytes.readUInt32BE(at)) {
        if (bytes[at + 10] === 0x14) arrived++;
      }
      if (arrived === first) return;
      const dispositions = Array.from({ length: arrived - first }, (_, i) =>
        wire.disposition({ role: 'receiver', first: first + i }),
      );
      const flow = wire.flow({ handle: toHub, deliveryCount: wire.uint(arrived), nextIncomingId: arrived });
      socket.arrive(Buffer.concat([...dispositions, flow]));
    };
    const fill = () => {
      while (sent < count && sent - settled < 100) {
        sender.send(payload, Buffer.from('tag0'), 0);
        sent++;
      }
    };
    sender.on('accepted', () => {
      settled++;
      if (settled === count) resolve();
      else fill();
    });
    fill();
  });
}

async function commands(
  { receiver, socket }: { receiver: Receiver; socket: PeerSocket },
  count: number,
  bytes: number,
): Promise<void> {
  const payload = rhea.message.encode({
    message_id: '6b1b7d32-7a58-4c5e-9a3b-27b3d4d5e6f7',
    to: '/devices/dev-01/messages/deviceBound',
    application_properties: { kind: 'reboot', 'iothub-ack': 'full' },
    message_annotations: { 'x-opt-sequence-number': 17, 'iothub-enqueuedtime': 1_700_000_000 },
    body: rhea.message.data_section(Buffer.alloc(bytes)),
  });
  const atOnce = Math.max(1, Math.floor(50_000 / payload.length));
  let [sent, received] = [0, 0];
  await new Promise<void>((resolve) => {
    const more = () => {
      const some = Math.min(atOnce, count - sent);
      const transfers = Array.from({ length: some }, () =>
        wire.transfer({ handle: fromHub, deliveryId: sent++, tag: wire.binary(Buffer.alloc(16)), payload }),
      );
      socket.arrive(Buffer.concat(transfers));
    };
    receiver.on('message', ({ delivery }: EventContext) => {
      delivery?.accept();
      received++;
      if (received === count) resolve();
      else if (received === sent) {
        receiver.add_credit(atOnce);
        setImmediate(more);
      }
    });
    receiver.add_credit(atOnce);
    setImmediate(more);
  });
}

/** Microseconds of CPU per message. */
async function measure(work: Work, guarded: boolean): Promise<number> {
  const socket = new PeerSocket();
  const connection = rhea.create_container({ id: 'bench' }).create_connection({
    reconnect: false,
    connect: (_port: number, _host: string, _options: unknown, connected: () => void) => {
      process.nextTick(connected);
      return guarded
        ? guard(socket, { ...limits, maxOutstandingDeliveries: 1024 })
        : (socket as unknown as GuardedSocket);
    },
  } as unknown as ConnectionOptions);
  connection.connect();
  const sender = connection.open_sender({ name: 'to the hub', target: 'there' });
  const receiver = connection.open_receiver({
    name: 'from the hub',
    source: 'there',
    credit_window: 0,
    autoaccept: false,
  });
  await new Promise(setImmediate);
  socket.arrive(answers());
  const before = process.cpuUsage();
  await work.run({ sender, receiver, socket }, work.count);
  const { user, system } = process.cpuUsage(before);
  socket.destroy();
  return (user + system) / work.count;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

const rounds = Number(process.argv[2] ?? 7);
process.stdout.write('work | bare us/message | guarded us/message | ratio\n');
for (const work of works) {
  const [bare, guarded]: [number[], number[]] = [[], []];
  await measure(work, false);
  await measure(work, true);
  for (let round = 0; round < rounds; round++) {
    bare.push(await measure(work, false));
    guarded.push(await measure(work, true));
  }
  const [without, within] = [median(bare), median(guarded)];
  process.stdout.write(
    `${work.name} | ${without.toFixed(2)} | ${within.toFixed(2)} | ${(within / without).toFixed(3)}\n`,
  );
}
