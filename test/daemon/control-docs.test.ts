import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

import { jsonLines, startAgent } from './agent-kit.js';

test('the examples of docs/operations.md work as they stand there', async () => {
  const page = readFileSync(join(import.meta.dirname, '../../docs/operations.md'), 'utf8');
  const examples = [...page.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, script = '']) => script);
  expect(examples.length).toBeGreaterThan(4);
  await using it = await startAgent();
  const bin = join(import.meta.dirname, '../../bin/iothub-device.js');
  await it.folder.script('iothub-device', `exec "${process.execPath}" --use-openssl-ca "${bin}" "$@"`);
  const { PATH = '' } = process.env;
  for (const example of examples) {
    const script = example.replaceAll('/run/iothub-device/control.sock', it.socket);
    const { stdout } = await promisify(execFile)('sh', ['-e', '-c', script], {
      env: { ...it.env, PATH: `${it.folder.path}:${PATH}` },
    });
    const lines = jsonLines(stdout);
    expect([example, lines.length]).toEqual([example, example.includes('x-ndjson') ? 2 : 1]);
    if (example.includes('/v1/telemetry')) {
      for (const { outcome } of lines) expect(outcome).toMatch(/^(queued|accepted)$/);
    }
  }
  await it.hub.waitFor((record) => record.of('telemetry').length === 4);
});
