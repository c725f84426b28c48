import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { Folder } from './cli/tool.js';
import { consoleBlocks, pathWithTools, typeInto } from './page.js';

test('every console block of docs/configuration.md prints what it shows', async () => {
  const page = readFileSync(join(import.meta.dirname, '../docs/configuration.md'), 'utf8');
  await using folder = await Folder.make();
  const steps = consoleBlocks(page).flatMap((block) => block.steps);
  expect(steps.length).toBeGreaterThan(8);
  const { printed, err } = await typeInto(folder, await pathWithTools(folder), steps);
  expect(err).toBe('edit it, then: iothub-device config check --config agent.toml\n');
  steps.forEach(({ command, output }, n) => {
    expect([command, printed[n]]).toEqual([command, output]);
  });
});
