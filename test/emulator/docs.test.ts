import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const page = readFileSync(join(import.meta.dirname, '../../docs/emulator.md'), 'utf8');

test('the page about the emulator names tests that exist, and leaves no row without an answer', () => {
  const asTheHub = rowsOf('What it does as the hub does');
  expect(asTheHub.length).toBeGreaterThan(15);
  for (const [what, shownBy] of asTheHub) {
    const files = [...shownBy!.matchAll(/`((?:emulator|interop)\/\w+)`/g)].map(([, file]) => file!);
    if (files.length === 0) expect(shownBy, what).toContain('not in this repository');
    for (const file of files) {
      expect(existsSync(join(import.meta.dirname, `../${file}.test.ts`)), `${what!}: ${file}`).toBe(true);
    }
  }
  for (const [what, state] of rowsOf('What is missing')) expect(state, what).toBe('not done');
});

/** The rows of the table below a heading, cell by cell, without its head. */
function rowsOf(heading: string): string[][] {
  const section = page.split(`## ${heading}\n`)[1]!.split('\n## ')[0]!;
  const lines = section.split('\n').filter((line) => line.startsWith('|'));
  return lines.slice(2).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}
