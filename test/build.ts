import { execFileSync } from 'node:child_process';

/** Builds dist/ (incrementally), because tests start the installed commands as processes of their own. */
export default function build(): void {
  execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'src'], { stdio: 'inherit' });
}
