import { join } from 'node:path';

import { expect, test } from 'vitest';

import { Folder, runTool, ToolProcess } from './tool.js';

const env = {
  IOTHUB_DEVICE_CONNECTION_STRING:
    'HostName=nowhere.invalid;DeviceId=dev-01;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0',
};
const tool = (args: readonly string[]) => runTool('iothub-device', args, { env });
const rounds = process.env['IOTHUB_FAULTS'] === 'long' ? 200 : 3;

test(
  'P1: what was said to be queued is there, wherever kill -9 hits',
  async () => {
    await using folder = await Folder.make();
    const lines = Array.from({ length: 20_000 }, (_, n) => `${String(n)}\n`).join('');
    for (let round = 0; round < rounds; round++) {
      const directory = join(folder.path, `spool-${String(round)}`);
      await using queue = new ToolProcess(
        'iothub-device',
        ['send', '--queue', '--lines', '--message-id', 'm', '-o', 'json', '--directory', directory],
        { env },
      );
      queue.stdin.write(lines);
      // After a random number of lines, somewhere in the middle of writing.
      const after = Math.floor(Math.random() * 8_000);
      await queue.says(new RegExp(`"m-${String(after + 1)}"`));
      queue.kill('SIGKILL');
      await queue.ended();
      // The last line may be cut off.
      const said = queue.out
        .slice(0, queue.out.lastIndexOf('\n') + 1)
        .split('\n')
        .filter((line) => line.includes('"queued"'))
        .map((line) => (JSON.parse(line) as { messageId: string }).messageId);
      expect(said.length).toBeGreaterThan(after);
      const { out } = await tool(['spool', 'list', '--directory', directory]);
      const stored = out
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => (JSON.parse(line) as { messageId: string }).messageId);
      expect(stored.slice(0, said.length)).toEqual(said);
      expect(await tool(['spool', 'verify', '--directory', directory])).toMatchObject({ code: 0 });
    }
  },
  20_000 * rounds,
);
