/**
 * A process that can be killed by what its peer says: `guard-victim.ts PORT COUNT [bare]` connects COUNT times in
 * turn, with or without a guard, and prints a line of JSON for each connection that ended.
 */
import { setTimeout as delay } from 'node:timers/promises';

import { startClient } from './guard-peer.js';

export interface Outcome {
  error: string | undefined;
  code: string | undefined;
  cpuMs: number;
  /** Of the whole process, from the second connection on. */
  grownMiB: number;
}

const [port, count, bare] = process.argv.slice(2);
let baseKiB = 0;

for (let i = 0; i < Number(count); i++) {
  const before = process.cpuUsage();
  await using client = startClient(Number(port), bare === 'bare' ? 'bare' : {});
  const error = await Promise.race([
    client.ended,
    delay(5000, new Error('nothing happened'), { ref: false }),
  ]);
  const { user, system } = process.cpuUsage(before);
  const { maxRSS } = process.resourceUsage();
  if (i === 0) baseKiB = maxRSS;
  const outcome: Outcome = {
    error: error?.message,
    code: (error as { code?: string } | undefined)?.code,
    cpuMs: (user + system) / 1000,
    grownMiB: (maxRSS - baseKiB) / 1024,
  };
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}
process.exit(0);
