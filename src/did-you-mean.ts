/** The name out of `known` that was probably meant by `given`; undefined when none is near. */
export function didYouMean(given: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Infinity;
  for (const name of known) {
    const distance = editDistance(normal(given), normal(name));
    if (distance < bestDistance) [best, bestDistance] = [name, distance];
  }
  // A third of the letters may be wrong: enough for a typo, too few for another word.
  return bestDistance <= Math.max(1, Math.floor(given.length / 3)) ? best : undefined;
}

/** `contentType`, `content_type` and `content-type` are the same word to a person. */
function normal(name: string): string {
  return name.toLowerCase().replace(/[-_]/g, '');
}

/** Letters to insert, drop, change or swap (optimal string alignment distance). */
function editDistance(a: string, b: string): number {
  let older: number[] = [];
  let old = Array.from({ length: b.length + 1 }, (_, at) => at);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1;
      let distance = Math.min(at(old, j) + 1, at(row, j - 1) + 1, at(old, j - 1) + change);
      if (a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) distance = Math.min(distance, at(older, j - 2) + 1);
      row.push(distance);
    }
    [older, old] = [old, row];
  }
  return at(old, b.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Infinity;
}
