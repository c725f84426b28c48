/**
 * Lets node run TypeScript files that are no tests: `node --import ./test/typescript.js test/faults/fuzz.ts`.
 * The types are taken off by the compiler that is there anyway; imports say `.js` and find the `.ts` beside.
 */
import { register } from 'node:module';

register('./typescript-hooks.js', import.meta.url);
