/** Durations, counted in buckets that are a fiftieth wider each: a million take no more room than ten. */
export class Latencies {
  readonly #counts = new Uint32Array(bucketCount);
  #count = 0;
  #longestMs = 0;

  get count(): number {
    return this.#count;
  }

  get longestMs(): number {
    return this.#longestMs;
  }

  add(ms: number): void {
    const bucket = Math.min(bucketCount - 1, Math.max(0, Math.ceil(Math.log(ms / shortestMs) / widerBy)));
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#count++;
    this.#longestMs = Math.max(this.#longestMs, ms);
  }

  /** So long that `share` of all took no longer, two percent more or less; undefined when there are none. */
  at(share: number): number | undefined {
    if (this.#count === 0) return undefined;
    let left = Math.ceil(this.#count * share);
    const bucket = this.#counts.findIndex((count) => (left -= count) <= 0);
    return Math.min(this.#longestMs, shortestMs * Math.exp(bucket * widerBy));
  }

  clear(): void {
    this.#counts.fill(0);
    this.#count = 0;
    this.#longestMs = 0;
  }
}

const shortestMs = 0.01;
const widerBy = Math.log(1.02);
/** Up to some hours. */
const bucketCount = 1_050;
