/** Who owns which partition: partition to owner, undefined when nobody does. */
export type Owners = ReadonlyMap<string, string | undefined>;

/** What one of several readers has to do for all of them to have as many partitions as the others, or one more. */
export interface Share {
  /** Free partitions to take. */
  take: string[];
  /** Partitions of ours to give up, because others have less than their share. */
  giveUp: string[];
}

/**
 * The share of `reader`. All of `readers` that look at the same table come to the same result, and a partition that
 * has a reader changes it only if it must.
 */
export function shareOf(reader: string, readers: readonly string[], owners: Owners): Share {
  const owned = new Map(readers.map((id): [string, string[]] => [id, []]));
  const free: string[] = [];
  for (const [partition, owner] of owners) (owned.get(owner ?? '') ?? free).push(partition);

  // Who has most already gets the odd ones.
  const count = (id: string): number => owned.get(id)?.length ?? 0;
  const ranked = [...readers].sort((a, b) => count(b) - count(a) || (a < b ? -1 : 1));
  const odd = owners.size % readers.length;
  const fair = Math.floor(owners.size / readers.length) + (ranked.indexOf(reader) < odd ? 1 : 0);

  const mine = owned.get(reader) ?? [];
  return { take: free.slice(0, Math.max(0, fair - mine.length)), giveUp: mine.slice(fair) };
}
