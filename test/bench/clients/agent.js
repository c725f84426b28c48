/**
 * The agent's own paths, out of the built program: what `send`, `spool drain` and `run` do with a message or a
 * command. The work is in the first argument, as JSON; one line of JSON comes out.
 */
import { readFileSync } from 'node:fs';

import { serveCommands } from '../../../dist/agent/commands.js';
import { runAgent } from '../../../dist/agent/run.js';
import { SpoolOutbox } from '../../../dist/agent/spool-outbox.js';
import { pumpTelemetry } from '../../../dist/agent/telemetry.js';
import { renewTokensDuring } from '../../../dist/agent/tokens.js';
import { encodeFor, openHubSession } from '../../../dist/amqp/session.js';
import { sendTelemetry } from '../../../dist/cli/device/send-telemetry.js';
import { systemClock as clock } from '../../../dist/clock.js';
import { createDispatcher } from '../../../dist/handlers/dispatch.js';
import { moduleHandler } from '../../../dist/handlers/module.js';
import { parseDeviceConnectionString } from '../../../dist/identity/connection-string.js';
import { deviceTokens } from '../../../dist/identity/token.js';
import { silentLog } from '../../../dist/log.js';
import { openStore } from '../../../dist/store/store.js';
import { bodyOf, contentEncoding, contentType, idOf, Meter, print, property } from './meter.js';

const work = JSON.parse(process.argv[2]);
const identity = parseDeviceConnectionString(work.connectionString);
const never = new AbortController().signal;
const makeToken = deviceTokens(identity);
const endpoint = { host: identity.host, port: 5671, trust: { extraCa: readFileSync(work.ca, 'utf8') } };
const hub = {
  ...{ identity, makeToken, clock, log: silentLog, encode: encodeFor(identity) },
  open: (links, signal) =>
    openHubSession(
      { endpoint, identity, links, log: silentLog, token: () => makeToken(clock.now()) },
      signal,
    ),
};
const properties = Object.fromEntries([property]);

/** `iothub-device send`, without the reading and the printing. */
async function send() {
  const meter = new Meter(work);
  const body = bodyOf(work.bytes);
  function* messages() {
    for (let n = 0; n < meter.total; n++) {
      meter.sent();
      yield { line: n, message: messageOf(n, body) };
    }
  }
  await sendTelemetry({ stop: never, now: never, stdout: { readerGone: never } }, hub, {
    messages: ready(messages()),
    inflight: work.window,
    batches: work.batches === true,
    onError: 'stop',
    timeoutMs: 60_000,
    print: (all) => {
      for (const sent of all) {
        if (sent.result?.outcome !== 'accepted') throw new Error(JSON.stringify(sent));
        if (meter.done()) meter.report();
      }
    },
  });
}

/** What is there at once, as the lines of a chunk of standard input are. */
async function* ready(items) {
  yield items;
}

/** `iothub-device spool drain`: what a process before this one left on disk is sent, and removed. */
async function drain() {
  const store = await storeIn(work.directory);
  const meter = new Meter(work);
  const outbox = new MeteredOutbox(store.spool, meter, 'end');
  await sendAll(outbox);
  await outbox.recorded();
  meter.report({ left: store.spool.stats().waiting.count });
}

/** Puts `count` messages on disk. */
async function fill() {
  const store = await storeIn(work.directory);
  const body = bodyOf(work.bytes);
  for (let n = 0; n < work.count; n += 500) {
    await store.spool.append(
      Array.from({ length: Math.min(500, work.count - n) }, (_, i) => spooled(n + i, body)),
    );
  }
  await store.close();
  print({ filled: store.spool.stats().waiting.count });
}

/** The memory of who has so many messages on disk, and reads the first of them. */
async function hold() {
  const store = await storeIn(work.directory);
  await store.spool.read([0, 0, 0, 0, 0, 0, 0, 0], { count: 1_000 });
  globalThis.gc();
  const { rss, heapUsed, external } = process.memoryUsage();
  print({
    waiting: store.spool.stats().waiting.count,
    residentMiB: rss / 2 ** 20,
    heapMiB: (heapUsed + external) / 2 ** 20,
  });
  process.exit();
}

/** `iothub-device run`: every message is on disk before it is sent, and gone from there after it was accepted. */
async function durable() {
  const store = await storeIn(work.directory);
  const meter = new Meter(work);
  const body = bodyOf(work.bytes);
  let next = 0;
  const append = () => {
    if (next === meter.total) return;
    meter.sent();
    void store.spool.append([spooled(next++, body)]);
  };
  const outbox = new MeteredOutbox(store.spool, meter, 'wait', append);
  for (let n = 0; n < work.window; n++) append();
  await sendAll(outbox);
}

/** `iothub-device run` with a handler that is a module and accepts everything. */
async function commands() {
  const store = await storeIn(work.directory);
  const meter = new Meter(work);
  let taken = 0;
  const handle = () => {
    if (taken++ < meter.total) meter.sent();
  };
  const dispatcher = createDispatcher({
    handlers: [moduleHandler({ on: 'command', handle }, { name: 'accept' })],
    concurrency: work.concurrency,
    order: 'none',
    ledger: store.ledger,
    log: silentLog,
  });
  let settled = 0;
  const onSettled = () => {
    if (settled++ < meter.total && meter.done()) meter.report();
  };
  await whileOnline(['commands'], (session) =>
    serveCommands(session, dispatcher, { stopping: never, log: silentLog, onSettled }),
  );
}

function sendAll(outbox) {
  return whileOnline(['telemetry'], (session) =>
    pumpTelemetry(session, outbox, { window: 10_000, batches: true, clock: hub.clock, stopping: never }),
  );
}

function whileOnline(links, serve) {
  return runAgent({
    open: (signal) => hub.open(links, signal),
    work: (session) => renewTokensDuring(session, hub, () => serve(session)),
    stopping: never,
    abandon: never,
    givesUp: () => true,
    clock: hub.clock,
    log: silentLog,
  });
}

function storeIn(directory) {
  const replyMessage = () => undefined;
  return openStore({ directory, spool: { maximumBytes: 2 ** 32 }, ledger: { replyMessage } });
}

function spooled(n, body) {
  const messageId = idOf(n);
  const { deviceId } = identity;
  return { deviceId, messageId, encoded: hub.encode(messageOf(n, body)) };
}

function messageOf(n, body) {
  return { messageId: idOf(n), contentType, contentEncoding, properties: { ...properties }, body };
}

class MeteredOutbox extends SpoolOutbox {
  #meter;
  #whenEmpty;
  #onAccepted;

  constructor(spool, meter, whenEmpty, onAccepted) {
    super(spool, { clock: hub.clock, log: silentLog, whenEmpty });
    this.#meter = meter;
    this.#whenEmpty = whenEmpty;
    this.#onAccepted = onAccepted;
  }

  take(...args) {
    const entry = super.take(...args);
    // What was on disk before sets out now.
    if (entry !== undefined && this.#onAccepted === undefined) this.#meter.sent();
    return entry;
  }

  settled(entry, outcome) {
    if (outcome.outcome !== 'accepted') throw new Error(JSON.stringify(outcome));
    super.settled(entry, outcome);
    this.#onAccepted?.();
    if (this.#meter.done() && this.#whenEmpty === 'wait') {
      void this.recorded().then(() => this.#meter.report());
    }
  }
}

// Last, as a class is not there before its line.
await { send, drain, durable, fill, hold, commands }[work.kind]();
