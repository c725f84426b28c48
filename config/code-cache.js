/**
 * Makes the code cache of the device tool, by a `send` to an emulator: what V8 has compiled by its end is what most
 * runs need. To be run again when Node.js is another one than at the build; without it all is as before, but slower.
 *
 * Run with arguments it is the device tool itself, and remembers.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { runBundle } from '../bin/bundle.js';

const bundle = fileURLToPath(new URL('../dist/cli/iothub-device.cjs', import.meta.url));

if (process.argv.length > 2) runBundle(bundle, { remember: true }).main('iothub-device');
else await sendToEmulator();

async function sendToEmulator() {
  const { startEmulator } = await import('../dist/emulator/emulator.js');
  const home = mkdtempSync(join(tmpdir(), 'code-cache-'));
  const hub = await startEmulator({ devices: ['dev1'] });
  try {
    const ca = join(home, 'ca.pem');
    writeFileSync(ca, hub.ca);
    const send = spawn(
      process.execPath,
      [fileURLToPath(import.meta.url), 'send', '--data', 'x', '--ca', ca, '-o', 'none'],
      {
        env: { HOME: home, IOTHUB_DEVICE_CONNECTION_STRING: hub.deviceConnectionString('dev1') },
        stdio: 'inherit',
      },
    );
    const [code] = await once(send, 'exit');
    // Without the loopback network, say.
    if (code !== 0) console.error('the code cache is of a send that failed: starts take a little longer');
  } finally {
    await hub[Symbol.asyncDispose]();
    rmSync(home, { recursive: true });
  }
}
