/**
 * Lets node run TypeScript files that are no tests: `node --import ./test/typescript.js test/faults/fuzz.ts`.
 * The types are taken off by the compiler that is there anyway; imports say `.js` and find the `.ts` beside.
 */
import * as module from 'node:module';

import * as hooks from './typescript-hooks.js';

// Newer releases of node run hooks in the thread itself, and warn of the other way.
if (module.registerHooks === undefined) module.register('./typescript-hooks.js', import.meta.url);
else module.registerHooks(hooks);
