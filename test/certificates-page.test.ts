import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { Folder } from './cli/tool.js';
import { consoleBlocks, pathWithTools, typeInto } from './page.js';

const page = readFileSync(join(import.meta.dirname, '../docs/certificates.md'), 'utf8');

test(
  'every console block of the page about certificates prints what it shows',
  { timeout: 90_000 },
  async () => {
    await using folder = await Folder.make();
    await using tools = await Folder.make();
    const steps = consoleBlocks(page).flatMap((block) => block.steps);
    const { printed, err } = await typeInto(folder, await pathWithTools(tools), steps);
    expect([steps.length, err]).toEqual([printed.length, '']);
    expect(steps.map(({ command }, n) => [command, printed[n]])).toEqual(
      steps.map(({ command, output }) => [command, output]),
    );
  },
);
