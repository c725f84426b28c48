/**
 * Makes the code caches of the device tool, each by a `send` to an emulator: what V8 has compiled by its end is what
 * most runs need. To be run again when Node.js is another one than at the build; without them all is as before, but
 * slower. `run` has none: it starts once, and what its cache brings would stay in memory, half a MiB.
 *
 * Run with a bundle and arguments it is the device tool itself, and remembers.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { runBundle } from '../bin/bundle.js';

const bundles = ['iothub-device-send.cjs', 'iothub-device.cjs'];

const [bundle] = process.argv.splice(2, 1);
if (bundle === undefined) await sendToEmulator();
else {
  const file = fileURLToPath(new URL(`../dist/cli/${bundle}`, import.meta.url));
  runBundle(file, { remember: true }).main('iothub-device');
}

async function sendToEmulator() {
  const { startEmulator } = await import('../dist/emulator/emulator.js');
  const home = mkdtempSync(join(tmpdir(), 'code-cache-'));
  const hub = await startEmulator({ devices: ['dev1'] });
  try {
    const ca = join(home, 'ca.pem');
    writeFileSync(ca, hub.ca);
    for (const name of bundles) {
      const send = spawn(
        process.execPath,
        [fileURLToPath(import.meta.url), name, 'send', '--data', 'x', '--ca', ca, '-o', 'none'],
        {
          env: { HOME: home, IOTHUB_DEVICE_CONNECTION_STRING: hub.deviceConnectionString('dev1') },
          stdio: 'inherit',
        },
      );
      const [code] = await once(send, 'exit');
      // Without the loopback network, say.
      if (code !== 0) console.error('the code cache is of a send that failed: starts take a little longer');
    }
  } finally {
    await hub[Symbol.asyncDispose]();
    rmSync(home, { recursive: true });
  }
}
