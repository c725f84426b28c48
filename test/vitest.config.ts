import { defineConfig } from 'vitest/config';

import Tally from './tally.js';

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: ['test/**/*.test.ts'],
    // The command line is tested as users run it, from dist/: built once, before the first test.
    globalSetup: [new URL('build.ts', import.meta.url).pathname],
    reporters: ['default', new Tally()],
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});
