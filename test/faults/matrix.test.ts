/** The page about reliability lists the faults; each is a test that bears its number. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const page = readFileSync(join(root, 'docs/reliability.md'), 'utf8');

/** Rows of its table: number, what happens, in which files. */
const rows = [...page.matchAll(/^\| ([NHTPG]\d+) +\| (.*?) +\| (.*?) +\|$/gm)].map(
  ([, id = '', , files = '']) => ({
    id,
    files: [...files.matchAll(/`(.*?)`/g)].map(([, file = '']) => `test/${file}.test.ts`),
  }),
);

/** What the titles of a file begin with: `N1:`, `G1 and G2:`, `N8 to N10:`. */
function idsIn(file: string): Set<string> {
  const text = readFileSync(join(root, file), 'utf8');
  const ids = new Set<string>();
  for (const [, kind = '', from = '', joint = '', to = from] of text.matchAll(
    /['`]([NHTPG])(\d+)(?: (to|and) [NHTPG](\d+))?:/g,
  )) {
    if (joint === 'and') ids.add(`${kind}${from}`).add(`${kind}${to}`);
    else for (let n = Number(from); n <= Number(to); n++) ids.add(`${kind}${n}`);
  }
  return ids;
}

test('every row of the matrix is there once', () => {
  const counts = { N: 25, H: 9, T: 4, P: 7, G: 11 };
  const wanted = Object.entries(counts).flatMap(([kind, count]) =>
    Array.from({ length: count }, (_, n) => `${kind}${n + 1}`),
  );
  expect(rows.map(({ id }) => id)).toEqual(wanted);
});

test.each(rows)('$id is a test where the page says', ({ id, files }) => {
  expect(files.length).toBeGreaterThan(0);
  for (const file of files) expect(idsIn(file), file).toContain(id);
});

test('no test bears a number that the page does not have', () => {
  const known = new Set(rows.map(({ id }) => id));
  const files = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' });
  for (const file of files.filter((name) => name.endsWith('.test.ts'))) {
    for (const id of idsIn(join('test', file))) expect(known, `${file}: ${id}`).toContain(id);
  }
});
