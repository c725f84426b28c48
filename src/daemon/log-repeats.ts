import type { LogLevel } from '../log.js';

/** So many lines with the same words are printed within the time; the others are counted. */
const most = 20;
const withinMs = 60_000;
/** The words are written in the program, so there are not many; what comes beyond is not limited. */
const mostKinds = 1_000;

interface Kind {
  printed: number;
  heldBack: number;
}

/** Says how many lines of a kind were held back. */
export type Summary = (level: LogLevel, message: string, heldBack: number, withinSeconds: number) => void;

/**
 * Keeps a flood out of the log: a hub that refuses every message would fill a disk. `debug` and `trace` are there to
 * see everything, and are not limited.
 */
export class Repeats {
  readonly #kinds = new Map<string, Kind>();
  readonly #summary: Summary;

  constructor(summary: Summary) {
    this.#summary = summary;
  }

  /** Whether a line is to be printed. */
  admits(level: LogLevel, message: string): boolean {
    if (level === 'debug' || level === 'trace') return true;
    const key = `${level} ${message}`;
    const kind = this.#kinds.get(key) ?? this.#begin(level, message, key);
    if (kind === undefined) return true;
    if (kind.printed < most) {
      kind.printed++;
      return true;
    }
    kind.heldBack++;
    return false;
  }

  #begin(level: LogLevel, message: string, key: string): Kind | undefined {
    if (this.#kinds.size >= mostKinds) return undefined;
    const kind = { printed: 0, heldBack: 0 };
    this.#kinds.set(key, kind);
    const timer = setTimeout(() => {
      this.#kinds.delete(key);
      if (kind.heldBack > 0) this.#summary(level, message, kind.heldBack, withinMs / 1000);
    }, withinMs);
    timer.unref();
    return kind;
  }
}
