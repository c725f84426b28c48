import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { exitCodes } from '../src/cli/exit-codes.js';
import { parseConfig } from '../src/daemon/config.js';
import { answerTo } from '../src/handlers/exit-table.js';
import { Folder } from './cli/tool.js';
import { alike, consoleBlocks, pathWithTools, typeInto } from './page.js';

const page = readFileSync(join(import.meta.dirname, '../docs/handlers.md'), 'utf8');

test('every console block of the page about handlers prints what it shows', async () => {
  await using folder = await Folder.make();
  const steps = consoleBlocks(page).flatMap((block) => block.steps);
  const { printed } = await typeInto(folder, await pathWithTools(folder), steps);
  expect(steps.length).toBeGreaterThan(10);
  expect(steps.map(({ command }, n) => [command, alike(printed[n] ?? 'nothing')])).toEqual(
    steps.map(({ command, output }) => [command, alike(output)]),
  );
});

test('its recipes are configurations, each by itself and all together', () => {
  const recipes = [...page.matchAll(/```toml\n(.*?)```/gs)].map(([, text]) => text!);
  expect(recipes).toHaveLength(10);
  for (const recipe of recipes) expect(parseConfig(recipe, 'agent.toml').handlers).toHaveLength(1);
  expect(parseConfig(recipes.join('\n'), 'agent.toml').handlers).toHaveLength(10);
});

test('its table of exit codes is the one that is used', () => {
  const verdict = (code: number) => answerTo({ kind: 'exit', code }, {}, 'release', undefined);
  const rows = [...page.matchAll(/^\| ([\d, to]+?) +\| (accept|release|reject).*?\| (\d+)/gm)];
  const shown = new Map(
    rows.flatMap(([, text, outcome, status]) =>
      codesIn(text!).map((code) => [code, { outcome, status: Number(status) }] as const),
    ),
  );
  expect(shown.size).toBe(11);
  for (const [code, wanted] of shown) expect([code, verdict(code)]).toMatchObject([code, wanted]);
  // And no code that the page leaves to "any other" is an exception.
  const others = [...Object.values(exitCodes), 1, 2, 100, 255].filter((code) => !shown.has(code));
  for (const code of others) expect(verdict(code)).toMatchObject({ outcome: 'reject', status: 500 });
});

/** `75, 69` or `64 to 67, 76`. */
function codesIn(text: string): number[] {
  return text.split(',').flatMap((part) => {
    const [from = 0, to = from] = part.split('to').map(Number);
    return Array.from({ length: to - from + 1 }, (_, n) => from + n);
  });
}
