import { availableParallelism } from 'node:os';

import { defineConfig } from 'vitest/config';

import Tally from './tally.js';

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts'],
    // The command line is tested as users run it, from dist/: built once, before the first test.
    globalSetup: [new URL('build.ts', import.meta.url).pathname],
    // Tests wait for processes, disks and clocks most of their time, so more of them than there are cores fit.
    maxWorkers: availableParallelism() + 1,
    reporters: ['default', new Tally()],
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
