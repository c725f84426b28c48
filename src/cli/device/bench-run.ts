import { open, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

import { AgentError, errorText } from '../../errors.js';
import type { TelemetryMessage } from '../../model.js';
import { anyOf } from '../../signals.js';
import { ulids } from '../../ulids.js';
import type { Io } from '../io.js';
import type { InputItem } from '../message-input.js';
import { table, type Printable, type Printer } from '../output.js';
import { ExitTally, sentError, type Sent } from '../output-sent.js';
import type { DeviceHub } from './hub.js';
import { Latencies } from './latency.js';
import { sendTelemetry } from './send-telemetry.js';

export interface BenchJob {
  /** Of all devices together; undefined: as many as the hub takes. */
  perSecond: number | undefined;
  /** Of a body. */
  bytes: number;
  forMs: number;
  /** Of each device. */
  inflight: number;
  batches: boolean;
  timeoutMs: number;
  /** File for a line each second. */
  csv: string | undefined;
  printer: Printer;
}

/** Sends from all devices at once, on the path of `send`, prints what came of it, and returns the exit code. */
export async function runBench(io: Io, hubs: readonly DeviceHub[], job: BenchJob): Promise<number> {
  const account = new Account();
  const over = new AbortController();
  using until = anyOf(io.stop, over.signal);
  const csv = job.csv === undefined ? undefined : await openCsv(job.csv);
  const startedAt = performance.now();
  const cpu = process.cpuUsage();
  const timer = setTimeout(() => {
    over.abort();
  }, job.forMs);
  const seconds = setInterval(() => {
    void csv?.appendFile(account.line(Math.round((performance.now() - startedAt) / 1000)));
  }, 1_000);
  try {
    await Promise.all(
      hubs.map((hub) =>
        sendTelemetry(io, hub, {
          messages: madeUp(job, hubs.length, until),
          inflight: job.inflight,
          batches: job.batches,
          onError: 'continue',
          timeoutMs: job.timeoutMs,
          print: (all) => {
            for (const sent of all) account.add(sent);
            return Promise.resolve();
          },
        }),
      ),
    );
  } finally {
    clearTimeout(timer);
    clearInterval(seconds);
    await csv?.close();
    const { user, system } = process.cpuUsage(cpu);
    const used = { seconds: (performance.now() - startedAt) / 1000, cpuSeconds: (user + system) / 1e6 };
    if (account.accepted + account.failed > 0)
      await job.printer.print(report(account, job, hubs.length, used));
  }
  return account.exitCode;
}

/** Messages at the rate that was asked for, until it is over: all that are due, and then again. */
async function* madeUp(
  { perSecond, bytes }: BenchJob,
  devices: number,
  until: AbortSignal,
): AsyncGenerator<Iterable<InputItem<TelemetryMessage>>> {
  const nextId = ulids();
  const body = bodyOf(bytes);
  const properties = { bench: '1' };
  const everyMs = perSecond === undefined ? 0 : (1000 * devices) / perSecond;
  const startedAt = performance.now();
  let made = 0;
  const untilNext = () => startedAt + made * everyMs - performance.now();
  const due = function* (): Generator<InputItem<TelemetryMessage>> {
    for (; untilNext() <= 0 && !until.aborted; made++) {
      const messageId = nextId();
      yield {
        line: undefined,
        message: { messageId, contentType: 'application/json', contentEncoding: 'utf-8', properties, body },
      };
    }
  };
  while (!until.aborted) {
    yield due();
    await delay(untilNext(), undefined, { signal: until }).catch(() => undefined);
  }
}

/** JSON of so many bytes, if that is enough for any. */
function bodyOf(bytes: number): Buffer {
  const [before, after] = ['{"bench":"', '"}'];
  const room = bytes - before.length - after.length;
  return room < 0 ? Buffer.alloc(bytes, '1') : Buffer.from(`${before}${'x'.repeat(room)}${after}`);
}

/** What became of all messages, and of those since the last line. */
class Account {
  accepted = 0;
  failed = 0;
  readonly all = new Latencies();
  readonly #tally = new ExitTally();
  readonly #lately = new Latencies();
  #before = { accepted: 0, failed: 0 };

  get exitCode(): number {
    return this.#tally.exitCode;
  }

  add(sent: Sent): void {
    this.#tally.add(sent);
    if (sentError(sent) === undefined) this.accepted++;
    else this.failed++;
    if (!('result' in sent)) return;
    this.all.add(sent.ms);
    this.#lately.add(sent.ms);
  }

  line(second: number): string {
    const { accepted, failed } = this.#before;
    this.#before = { accepted: this.accepted, failed: this.failed };
    const cells = [second, this.accepted - accepted, this.failed - failed, ...percentiles(this.#lately)];
    this.#lately.clear();
    return `${cells.join(',')}\n`;
  }
}

/** p50, p90, p99 and the longest, milliseconds; empty where there is none. */
function percentiles(latencies: Latencies): string[] {
  const [p50, p90, p99] = [0.5, 0.9, 0.99].map((share) => latencies.at(share));
  return [p50, p90, p99, latencies.count === 0 ? undefined : latencies.longestMs].map(
    (ms) => ms?.toFixed(2) ?? '',
  );
}

function report(
  { accepted, failed, all }: Account,
  { bytes }: BenchJob,
  devices: number,
  { seconds, cpuSeconds }: { seconds: number; cpuSeconds: number },
): Printable {
  const [p50 = '', p90 = '', p99 = '', longest = ''] = percentiles(all);
  const perSecond = accepted / seconds;
  const cpuPer100k = (cpuSeconds / (accepted + failed)) * 100_000;
  return {
    json: () =>
      JSON.stringify({
        ...{ devices, bytes, seconds: rounded(seconds), accepted, failed, perSecond: rounded(perSecond) },
        ...{ p50Ms: Number(p50), p90Ms: Number(p90), p99Ms: Number(p99), maxMs: Number(longest) },
        cpuSecondsPer100k: rounded(cpuPer100k),
      }),
    text: () =>
      table([
        ['messages', `${accepted} accepted, ${failed} not, ${bytes} bytes each, in ${seconds.toFixed(1)} s`],
        ['rate', `${perSecond.toFixed(0)} a second, of ${devices} ${devices === 1 ? 'device' : 'devices'}`],
        ['answers', `p50 ${p50} ms, p90 ${p90} ms, p99 ${p99} ms, longest ${longest} ms`],
        ['CPU', `${cpuPer100k.toFixed(2)} s for 100 000 messages, connecting included`],
      ]),
  };
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}

async function openCsv(file: string): Promise<FileHandle> {
  try {
    const handle = await open(file, 'w');
    await handle.appendFile('seconds,accepted,failed,p50_ms,p90_ms,p99_ms,max_ms\n');
    return handle;
  } catch (cause) {
    throw new AgentError('cannot-create', `cannot write ${file}: ${errorText(cause)}`, { cause });
  }
}
