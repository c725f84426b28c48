import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import { environment } from './bench.js';
import type { Hub } from './hub.js';

const root = join(import.meta.dirname, '../../..');

/** `iothub-device send --data`, started as its file says. */
export const agentOnce = {
  program: join(root, 'bin/iothub-device.js'),
  args: (hub: Hub) => ['send', '--data', '{"temperature":21.5}', '--ca', hub.ca],
};

/** The smallest script with the official SDK. */
export const officialOnce = {
  program: process.execPath,
  args: (_hub: Hub) => [join(root, 'test/bench/clients/official-once.mjs')],
};

/** Milliseconds from starting a program that sends one message to its end. */
export async function timeOnce(
  { program, args }: { program: string; args: (hub: Hub) => string[] },
  hub: Hub,
  connectionString = hub.connectionString,
): Promise<number> {
  const startedAt = performance.now();
  const child = spawn(program, args(hub), {
    env: environment({
      IOTHUB_DEVICE_CONNECTION_STRING: connectionString,
      NODE_EXTRA_CA_CERTS: program === process.execPath ? hub.ca : '',
    }),
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new Error(`${program} ended with ${String(code)}`);
  return performance.now() - startedAt;
}
