/**
 * A set of ids that ascend while the old ones go: a bit for each, in pages that go with their last. Of a `Set` that so
 * many pass through V8 chains the tables that it leaves behind, and one collection after the other copies them.
 */
export class IdSet {
  readonly #pages = new Map<number, Page>();

  has(id: number): boolean {
    const page = this.#pages.get(Math.floor(id / idsPerPage));
    return page !== undefined && isSet(page, id % idsPerPage);
  }

  add(id: number): void {
    const number = Math.floor(id / idsPerPage);
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = { bits: new Uint8Array(idsPerPage / 8), count: 0 };
      this.#pages.set(number, page);
    }
    const place = id % idsPerPage;
    if (isSet(page, place)) return;
    flip(page, place);
    page.count++;
  }

  delete(id: number): void {
    const number = Math.floor(id / idsPerPage);
    const page = this.#pages.get(number);
    const place = id % idsPerPage;
    if (page === undefined || !isSet(page, place)) return;
    flip(page, place);
    page.count--;
    if (page.count === 0) this.#pages.delete(number);
  }
}

interface Page {
  readonly bits: Uint8Array;
  /** How many are set. */
  count: number;
}

const idsPerPage = 4096;

function isSet({ bits }: Page, place: number): boolean {
  return ((bits[place >> 3] ?? 0) & (1 << (place & 7))) !== 0;
}

function flip({ bits }: Page, place: number): void {
  bits[place >> 3] = (bits[place >> 3] ?? 0) ^ (1 << (place & 7));
}
