import { expect, test } from 'vitest';

import { openSession, startHub } from '../amqp/hub.js';
import { uploadFile } from '../emulator/upload.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

/** Two devices that accept every command, and reject those that are called bad. */
async function setUp() {
  const hub = await startHub({ devices: ['d0', 'd1'], commands: { lockMs: 2_000 }, httpsPort: 0 });
  const folder = await Folder.make();
  const env = await environmentOf(hub, 'd0', folder);
  const agents = await Promise.all(
    ['d0', 'd1'].map(async (id) => {
      const session = await openSession(hub, { connectionString: hub.deviceConnectionString(id) });
      session.commands.onCommand(({ command, settle }) => {
        settle(command.messageId?.startsWith('bad') === true ? { outcome: 'reject' } : { outcome: 'accept' });
      });
      session.commands.grant(100);
      return session;
    }),
  );
  return {
    hub,
    send: (deviceId: string, messageId: string) =>
      hub.sendCommand({ deviceId, messageId, body: 'go', ack: 'full' }),
    run: (...args: string[]) => runTool('iothub-service', args, { env }),
    start: (...args: string[]) => new ToolProcess('iothub-service', args, { env }),
    async [Symbol.asyncDispose]() {
      for (const agent of agents) await agent[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

function lines(out: string): Record<string, unknown>[] {
  return out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

test('prints each record, and takes it off the queue then', async () => {
  await using it = await setUp();
  it.send('d0', 'c1');
  it.send('d1', 'bad1');
  const { code, out, err } = await it.run('feedback', '-n', '2', '-o', 'json');
  expect([code, err]).toEqual([0, '']);
  const records = lines(out).sort((a, b) => String(a['deviceId']).localeCompare(String(b['deviceId'])));
  expect(records).toMatchObject([
    { originalMessageId: 'c1', deviceId: 'd0', statusCode: 'Success', description: 'Success' },
    { originalMessageId: 'bad1', deviceId: 'd1', statusCode: 'Rejected' },
  ]);
  expect(await it.run('feedback', '--idle', '300ms', '-o', 'json')).toMatchObject({ code: 0, out: '' });
});

test('stops behind the record that was waited for', async () => {
  await using it = await setUp();
  await using waiting = it.start('feedback', '--until', 'c2', '-o', 'text', '--utc');
  await it.hub.waitFor((record) => record.of('attached').some(({ link }) => link === 'feedback'));
  it.send('d0', 'c1');
  await waiting.says(/c1/);
  expect(waiting.exited).toBe(false);
  it.send('d0', 'c2');
  const { code, out } = await waiting.ended();
  expect(code).toBe(0);
  expect(out).toMatch(/^\d{4}-\d\d-\d\d .*Z {2}d0 +Success +c1\n.*c2\n$/);
});

test('batches of other devices alone are left to others', async () => {
  await using it = await setUp();
  it.send('d1', 'theirs');
  await it.hub.waitFor((record) => record.of('feedback').length === 1);
  expect(await it.run('feedback', '--device', 'd0', '--for', '500ms')).toMatchObject({ code: 0, out: '' });
  const { out } = await it.run('feedback', '-n', '1', '-o', 'json');
  expect(lines(out)).toMatchObject([{ originalMessageId: 'theirs' }]);
});

test('goes on when its connection is lost', async () => {
  await using it = await setUp();
  await using following = it.start('feedback', '--until', 'c2', '-o', 'json');
  await it.hub.waitFor((record) => record.of('attached').some(({ link }) => link === 'feedback'));
  it.send('d0', 'c1');
  await following.says(/c1/);
  it.hub.faults.now({ act: 'drop' }, { link: 'feedback' });
  it.hub.faults.now({ act: 'detach', condition: 'amqp:link:detach-forced' }, { link: 'feedback' });
  await it.hub.waitFor(
    (record) => record.of('attached').filter(({ link }) => link === 'feedback').length === 2,
  );
  it.send('d1', 'c2');
  const { code, out } = await following.ended();
  expect(code).toBe(0);
  expect(lines(out).map(({ originalMessageId }) => originalMessageId)).toContain('c2');
});

test('notifications are printed, and taken off the queue then; they end as they are told', async () => {
  await using it = await setUp();
  await uploadFile(it.hub, 'd0', 'log 1.txt', 'hello');
  await uploadFile(it.hub, 'd1', 'log 2.txt', 'hello again');
  const { code, out, err } = await it.run('notifications', '-n', '1', '-o', 'json');
  expect([code, err]).toEqual([0, '']);
  expect(lines(out)).toMatchObject([{ deviceId: 'd0', blobName: 'd0/log 1.txt', blobSizeInBytes: 5 }]);
  const second = await it.run('notifications', '--idle', '500ms', '-o', 'text', '--utc');
  expect(second).toMatchObject({ code: 0, err: '' });
  expect(second.out).toMatch(/^\d{4}-\d\d-\d\d .*Z {2}d1 +11 B +d1\/log 2\.txt\n$/);

  await using waiting = it.start('notifications', '-o', 'json');
  await it.hub.waitFor(
    (record) => record.of('attached').filter(({ link }) => link === 'notifications').length === 3,
  );
  it.hub.faults.now({ act: 'drop' }, { link: 'notifications' });
  await uploadFile(it.hub, 'd0', 'log 3.txt', 'x');
  await waiting.says(/log 3/);
  waiting.kill('SIGTERM');
  expect((await waiting.ended()).code).toBe(143);
});
