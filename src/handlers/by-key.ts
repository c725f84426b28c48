/** In a list with others whose keys fall together. */
interface Keyed<T> {
  readonly key: string;
  next: T | undefined;
}

/** For whoever expects any number. */
const mostLists = 2 ** 12;

/**
 * Things that come and go, found by their keys. Not a `Map`: V8 chains the tables that a busy one leaves behind, and all
 * that was in them when they were left is copied by one collection after the other. The lists are short as long as
 * there are no more things than were expected.
 */
export class ByKey<T extends Keyed<T>> {
  readonly #lists: (T | undefined)[];
  #size = 0;

  constructor(expected: number) {
    const lists = Math.min(mostLists, 2 ** Math.ceil(Math.log2(expected + 1)));
    this.#lists = Array.from({ length: lists }, () => undefined);
  }

  get size(): number {
    return this.#size;
  }

  get(key: string): T | undefined {
    let one = this.#lists[this.#listOf(key)];
    while (one !== undefined && one.key !== key) one = one.next;
    return one;
  }

  /** There must be none with its key. */
  add(one: T): void {
    const list = this.#listOf(one.key);
    one.next = this.#lists[list];
    this.#lists[list] = one;
    this.#size++;
  }

  /** It must be there. */
  remove(one: T): void {
    const list = this.#listOf(one.key);
    const first = this.#lists[list];
    if (first === one) {
      this.#lists[list] = one.next;
    } else {
      let before = first;
      while (before !== undefined && before.next !== one) before = before.next;
      if (before !== undefined) before.next = one.next;
    }
    one.next = undefined;
    this.#size--;
  }

  *[Symbol.iterator](): Generator<T> {
    for (const first of [...this.#lists]) for (let one = first; one !== undefined; one = one.next) yield one;
  }

  /** By the end of the key, where most differ: digits of a checksum or of a number, or what a digest has anywhere. */
  #listOf(key: string): number {
    let sum = 0;
    for (let at = Math.max(0, key.length - 4); at < key.length; at++) sum = 31 * sum + key.charCodeAt(at);
    return sum & (this.#lists.length - 1);
  }
}
