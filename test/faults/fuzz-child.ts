/**
 * Plays conversations to rhea, in a process that may die of them: `fuzz-child.ts FIRST COUNT DAMAGE guarded|bare`.
 * Prints each seed before it is played, and now and then and at the end a line of JSON: the `Played` so far.
 */
import '../../src/no-debug.js';

import { writeSync } from 'node:fs';
import { Duplex } from 'node:stream';

import type { EventContext } from 'rhea';

import { AgentError } from '../../src/errors.js';
import { guard, unreadableReason, type GuardedSocket } from '../../src/amqp/guard.js';
import { CommandLink } from '../../src/amqp/command-link.js';
import { silentLog, type Log } from '../../src/log.js';
import { SenderLink } from '../../src/amqp/sender-link.js';
import { clientOf, limits } from '../amqp/guard-peer.js';
import { conversation } from './fuzz-frames.js';

export interface Played {
  conversations: number;
  /** Damaged frames that were heard: what follows a violation is not. */
  damagedFrames: number;
  messages: number;
  readable: number;
  /** Commands that were read beside rhea. */
  beside: number;
  unreadable: number;
  /** Deliveries of ours that went beside rhea and were told their outcome. */
  settled: number;
  /** Conversations that the guard ended. */
  violations: number;
  /** Errors that are rhea's or JavaScript's, and what rhea printed: with their first seed. */
  surprises: Record<string, { count: number; seed: number }>;
  /** Most CPU time that one piece of what arrived took, milliseconds, and where: the machine may be busy otherwise. */
  longestStallMs: number;
  longestStallSeed: number;
  /** Growth of all memory in use after garbage collection, and of the largest resident size, from a tenth of the run on. */
  grownHeapMiB: number;
  grownPeakMiB: number;
}

const [first = 0, count = 0] = process.argv.slice(2, 4).map(Number);
const damage = process.argv[4] as Parameters<typeof conversation>[1];
const bare = process.argv[5] === 'bare';

const played: Played = {
  conversations: 0,
  damagedFrames: 0,
  messages: 0,
  readable: 0,
  beside: 0,
  settled: 0,
  unreadable: 0,
  violations: 0,
  surprises: {},
  longestStallMs: 0,
  longestStallSeed: -1,
  grownHeapMiB: 0,
  grownPeakMiB: 0,
};

let seed = first;
for (const method of ['log', 'error', 'warn', 'trace']) {
  Object.assign(globalThis.console, {
    [method]: (text: unknown) => {
      surprise(`printed: ${String(text)}`);
    },
  });
}

async function main(): Promise<void> {
  let base = { heap: 0, peak: 0 };
  for (; seed < first + count; seed++) {
    writeSync(1, `${seed}\n`);
    await play();
    if (seed === first + Math.floor(count / 10)) base = memory();
    if (seed % 20 === 0) writeSync(1, `${JSON.stringify(played)}\n`);
  }
  const { heap, peak } = memory();
  played.grownHeapMiB = heap - base.heap;
  played.grownPeakMiB = peak - base.peak;
  writeSync(1, `${JSON.stringify(played)}\n`);
}

/** Plays one conversation to a client that does with messages what the agent does. */
async function play(): Promise<void> {
  const { chunks, damagedFramesAt, messages } = conversation(seed, damage);
  const state = { over: false };
  const socket = new LocalSocket();
  const guarded = bare
    ? (socket as unknown as GuardedSocket)
    : guard(socket, { ...limits, maxMessageBytes: 65_536 });
  const client = clientOf(guarded, (connected) => {
    process.nextTick(connected);
  });
  const scope = { over: new AbortController().signal, fail: () => undefined, outlet: guarded };
  void client.ended.then((error) => {
    state.over = true;
    if (error instanceof AgentError && error.code === 'protocol') played.violations++;
    else if (error !== undefined && error.name !== 'ConnectionError')
      surprise(`${error.name}: ${error.message}`);
  });
  const sendSome = () => {
    // The hub may have taken it back in the same piece, which the guard has read to its end.
    if (!client.sender.is_open()) return;
    // As rhea sends, and beside it, in turn.
    const link = bare || seed % 2 === 0 ? undefined : new SenderLink(client.sender.name, scope);
    for (let i = 0; i < 4; i++) {
      if (link === undefined) client.sender.send({ body: 'x' });
      else link.ship(Buffer.from('x'), 0, { settled: () => played.settled++, lost: () => undefined });
    }
  };
  client.sender.once('sendable', () => {
    queueMicrotask(sendSome);
  });
  client.receiver.on('message', ({ message, delivery }: EventContext) => {
    if (message === undefined || delivery === undefined) return;
    if (unreadableReason(message) !== undefined) {
      played.unreadable++;
      delivery.reject();
      return;
    }
    played.readable++;
    delivery.accept();
  });
  await turn();
  if (!bare && seed % 2 !== 0) {
    // Beside rhea, as commands are.
    const log: Log = { ...silentLog, warn: () => played.unreadable++ };
    new CommandLink(client.receiver.name, scope, { deviceId: 'dev-01' }, log).onCommand(({ settle }) => {
      played.beside++;
      settle({ outcome: 'accept' });
    });
  }
  let heard = 0;
  for (const chunk of chunks) {
    if (state.over) break;
    heard += chunk.length;
    const before = process.cpuUsage();
    socket.emit('data', chunk);
    await turn();
    const { user, system } = process.cpuUsage(before);
    const stall = (user + system) / 1000;
    if (stall > played.longestStallMs) {
      played.longestStallMs = stall;
      played.longestStallSeed = seed;
    }
  }
  socket.emit('end');
  await turn();
  socket.destroy();
  played.conversations++;
  played.messages += messages;
  played.damagedFrames += damagedFramesAt.filter((at) => at < heard).length;
}

/** A socket without a network. */
class LocalSocket extends Duplex {
  override _read(): void {
    /* `data` is emitted as it comes */
  }
  override _write(_bytes: Buffer, _encoding: string, done: () => void): void {
    done();
  }
}

function surprise(text: string): void {
  const entry = (played.surprises[text.replaceAll(/\d+/g, '#').slice(0, 200)] ??= { count: 0, seed });
  entry.count++;
}

/** In MiB, after garbage collection when node was started with `--expose-gc`. */
function memory(): { heap: number; peak: number } {
  globalThis.gc?.();
  const { heapUsed, external, arrayBuffers } = process.memoryUsage();
  return {
    heap: (heapUsed + external + arrayBuffers) / 2 ** 20,
    peak: process.resourceUsage().maxRSS / 2 ** 10,
  };
}

function turn(): Promise<void> {
  return new Promise(setImmediate);
}

await main();
process.exit(0);
