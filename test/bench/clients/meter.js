/** What a client measures of itself, and prints as one line of JSON when it has everything it sent. */

/** Of `total` messages the first `warm` are not measured: the compiler is still at work on what they run through. */
export class Meter {
  #warm;
  #total;
  #sentAt;
  #ms;
  #done = 0;
  #sent = 0;
  #startedAt = 0;
  #cpu = process.cpuUsage();

  constructor({ count, warm }) {
    this.#warm = warm;
    this.#total = warm + count;
    this.#sentAt = new Float64Array(this.#total);
    this.#ms = new Float64Array(this.#total);
  }

  get total() {
    return this.#total;
  }

  /** A message sets out. */
  sent() {
    if (this.#sent === this.#warm) this.#start();
    this.#sentAt[this.#sent++] = performance.now();
  }

  /** The hub has answered for the next one; answers come in the order of sending. True with the last. */
  done() {
    this.#ms[this.#done] = performance.now() - this.#sentAt[this.#done];
    return ++this.#done === this.#total;
  }

  /** Prints what was measured, and exits. */
  report(more = {}) {
    const seconds = (performance.now() - this.#startedAt) / 1000;
    const { user, system } = process.cpuUsage(this.#cpu);
    const count = this.#total - this.#warm;
    const ms = this.#ms.subarray(this.#warm).sort();
    const at = (share) => ms[Math.min(ms.length - 1, Math.floor(ms.length * share))];
    print({
      perSecond: count / seconds,
      cpuPer100k: (user + system) / 1e6 / (count / 100_000),
      p50Ms: at(0.5),
      p99Ms: at(0.99),
      peakMiB: process.resourceUsage().maxRSS / 1024,
      ...more,
    });
    process.exit();
  }

  #start() {
    this.#cpu = process.cpuUsage();
    this.#startedAt = performance.now();
  }
}

export function print(result) {
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

/** A body of so many bytes, and an id as long as a ULID that is another for every message. */
export const bodyOf = (bytes) => Buffer.alloc(bytes, 'x');
export const idOf = (n) => `01J8Z0BENCH000000${threeOf(n / 1e6)}${threeOf(n / 1e3)}${threeOf(n)}`;

/** V8 keeps the last thousands of numbers that it has made strings of: what it keeps is copied by its collections. */
const threeDigits = Array.from({ length: 1000 }, (_, n) => String(n).padStart(3, '0'));
const threeOf = (n) => threeDigits[Math.floor(n) % 1000];

/** What every message carries besides: as telemetry usually does. */
export const contentType = 'application/json';
export const contentEncoding = 'utf-8';
export const property = ['level', 'normal'];
