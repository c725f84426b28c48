import { spawnSync } from 'node:child_process';

/**
 * Builds dist/ (incrementally), because tests start the installed commands as processes of their own. Type errors do
 * not stop it: `npm run check` reports them, and a test that stumbles over one says more.
 */
export default function build(): void {
  for (const step of [['node_modules/typescript/bin/tsc', '-p', 'src'], ['config/bundle.js']]) {
    spawnSync(process.execPath, step, { stdio: 'ignore' });
  }
}
