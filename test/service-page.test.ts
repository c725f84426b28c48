import { readFileSync } from 'node:fs';
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';

import { startEmulator } from '../src/emulator/emulator.js';
import { Folder } from './cli/tool.js';
import { sendAs } from './service/kit.js';

const page = readFileSync(join(import.meta.dirname, '../docs/service.md'), 'utf8');

test('the code of the page about the service side runs against the package, and reads what devices send', async () => {
  // The code knows a hub by its name alone, so this one has an address with the standard port to itself.
  const address = `127.${[0, 0, 0].map(() => 1 + Math.floor(Math.random() * 250)).join('.')}`;
  await using hub = await startEmulator({
    ...{ host: address, hubName: address, hostNames: [address], port: 5671, devices: ['dev1'] },
  });
  await using folder = await Folder.make();
  await mkdir(join(folder.path, 'node_modules'));
  await symlink(join(import.meta.dirname, '..'), join(folder.path, 'node_modules/iothub-device'));
  const [, code = ''] = /```js\n(.*?)```/s.exec(page)!;
  const example = spawn(process.execPath, [await folder.write('example.mjs', code)], {
    cwd: folder.path,
    env: {
      IOTHUB_SERVICE_CONNECTION_STRING: hub.serviceConnectionString(),
      NODE_EXTRA_CA_CERTS: await folder.write('ca.pem', hub.ca),
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await sendAs(hub, 'dev1', ['m1']);
  const [line] = (await once(example.stdout.setEncoding('utf8'), 'data')) as [string];
  expect(line).toBe('dev1 {"t":21.5}\n');
  await folder.has('seen.json');
  example.kill();
  await once(example, 'close');
});
