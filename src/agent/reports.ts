import { AgentError } from '../errors.js';
import type { Log } from '../log.js';
import {
  combined,
  descend,
  difference,
  isJsonObject,
  merged,
  nested,
  type JsonObject,
} from './merge-patch.js';

/** What became of one desired property, as the device reports it (the acknowledgement of IoT Plug and Play). */
export interface Acknowledgement {
  /** Name of the desired property, with dots for what is inside another. */
  path: string;
  /** `$version` of the desired properties. */
  version: number;
  /** In the manner of HTTP. */
  status: number;
  description: string | undefined;
  /** The value that holds now; null when the property is gone, undefined when nobody knows. */
  value: unknown;
  /** What the handler reports besides, from the root of the reported properties. */
  more?: JsonObject | undefined;
}

/**
 * Acknowledgements on their way to the hub: `{"interval":{"value":5,"ac":200,"av":7,"ad":"done"}}`. They outlast the
 * connection, and go out together where they touch different properties.
 */
export class Reports {
  readonly #log: Log;
  /** What the hub has, as far as we know. */
  #reported: JsonObject = {};
  #waiting: Acknowledgement[] = [];
  /** A patch for several was refused: until they are out each goes alone. */
  #oneByOne = false;

  constructor(log: Log) {
    this.#log = log;
  }

  get isEmpty(): boolean {
    return this.#waiting.length === 0;
  }

  /** Takes what the hub has now. */
  read(reported: JsonObject): void {
    this.#reported = reported;
  }

  add(acknowledgement: Acknowledgement): void {
    // A newer one says it all, unless the older brought something of the handler's.
    this.#waiting = this.#waiting.filter(
      ({ path, more }) => path !== acknowledgement.path || more !== undefined,
    );
    this.#waiting.push(acknowledgement);
  }

  /** Sends all that waits, in order. What `send` rejects with, but for `data`, ends it; the rest waits on. */
  async sendAll(send: (patch: string) => Promise<unknown>): Promise<void> {
    while (!this.isEmpty) {
      const batch = this.#nextBatch();
      const patch = batch.map((each) => patchFor(each, this.#reported)).reduce(combined);
      try {
        await send(JSON.stringify(patch));
        this.#reported = merged(this.#reported, patch);
        this.#drop(batch);
      } catch (error) {
        if (!(error instanceof AgentError) || error.code !== 'data') throw error;
        this.#refused(batch, error);
      }
    }
    this.#oneByOne = false;
  }

  /** The first ones that share no property at the root. */
  #nextBatch(): Acknowledgement[] {
    if (this.#oneByOne) return this.#waiting.slice(0, 1);
    const touched = new Set<string>();
    const clash = this.#waiting.findIndex((each) => {
      const roots = rootsOf(each);
      const clashes = roots.some((root) => touched.has(root));
      for (const root of roots) touched.add(root);
      return clashes;
    });
    return clash < 0 ? [...this.#waiting] : this.#waiting.slice(0, clash);
  }

  /** The value or what the handler added may be too large, or have a name that the hub does not take. */
  #refused(batch: readonly Acknowledgement[], error: AgentError): void {
    const [only] = batch;
    if (only === undefined || batch.length > 1) {
      this.#oneByOne = true;
      return;
    }
    const { path, version, status } = only;
    this.#drop(batch);
    const isBare = only.value === undefined && only.more === undefined;
    this.#log.warn('the hub refused a report', { path, version, error });
    if (isBare) return;
    const description = 'the hub refused the value or what the handler reported';
    this.#waiting.unshift({ path, version, status, description, value: undefined });
  }

  #drop(batch: readonly Acknowledgement[]): void {
    this.#waiting = this.#waiting.filter((each) => !batch.includes(each));
  }
}

function rootsOf({ path, more = {} }: Acknowledgement): string[] {
  const [root = path] = path.split('.');
  return [root, ...Object.keys(more)];
}

function patchFor(
  { path, version, status, description, value, more = {} }: Acknowledgement,
  reported: JsonObject,
): JsonObject {
  const names = path.split('.');
  const former = descend(reported, [...names, 'value']);
  // A patch merges objects, so what is not in the new value has to be taken out of the old one.
  const patched = isJsonObject(former) && isJsonObject(value) ? difference(former, value) : value;
  const entry = { ...(value !== undefined && { value: patched }), ac: status, av: version };
  return combined(nested(names, { ...entry, ad: description ?? null }), more);
}
