import { describe, expect, test } from 'vitest';

import { environmentOf, Folder, ToolProcess } from '../cli/tool.js';
import { mayUse443, Sdk, startHub } from './sdk.js';

/** A hub, an official service client, and our device as users run it. */
async function setUp() {
  const hub = await startHub({ devices: ['dev-01'] });
  const folder = await Folder.make();
  const env = await environmentOf(hub, 'dev-01', folder);
  const service = await Sdk.start('service', hub);
  await service.call('open', hub.serviceConnectionString());
  const tools: ToolProcess[] = [];
  return {
    hub,
    folder,
    service,
    device: (...args: string[]) => {
      const tool = new ToolProcess('iothub-device', args, { env, cwd: folder.path });
      tools.push(tool);
      return tool;
    },
    async [Symbol.asyncDispose]() {
      for (const tool of tools) await tool[Symbol.asyncDispose]();
      await service[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

describe.skipIf(!mayUse443)('azure-iothub', () => {
  test('invokes methods of our agent', async () => {
    await using it = await setUp();
    const script = await it.folder.script(
      'echo',
      `[ "$IOTHUB_METHOD" = echo ] || { echo "no such thing" >&2; exit 65; }; cat`,
    );
    it.device('method', 'serve', 'echo', 'fail', '--exec', script);
    const invoke = (methodName: string, payload: unknown) =>
      it.service.call('invoke', 'dev-01', {
        methodName,
        payload,
        connectTimeoutInSeconds: 20,
        responseTimeoutInSeconds: 20,
      });
    for (const payload of [null, '', 'ä', 0, [1, { a: null }], { deep: { er: true } }]) {
      expect(await invoke('echo', payload)).toEqual({ status: 200, payload });
    }
    const large = 'x'.repeat(60_000);
    expect(await invoke('echo', large)).toEqual({ status: 200, payload: large });
    expect(await invoke('fail', 1)).toEqual({ status: 400, payload: { message: 'no such thing' } });
    expect(await invoke('other', 1)).toMatchObject({ status: 501 });
  });

  test('sets desired properties and reads how our agent acknowledged them', async () => {
    await using it = await setUp();
    const script = await it.folder.script(
      'set',
      `[ "$(cat)" != 13 ] || { echo "not thirteen" >&2; exit 65; }`,
    );
    const agent = it.device('twin', 'watch', '--exec', script, '-o', 'json');
    await it.hub.waitFor((record) => record.of('twin').some(({ operation }) => operation === 'GET'), {
      timeoutMs: 20_000,
    });
    // Whatever the device has reported meanwhile.
    const desire = (desired: object) =>
      it.service.call('registry', 'updateTwin', 'dev-01', { properties: { desired } }, '*');
    await desire({ interval: 5, fan: { speed: 1, mode: 'auto' } });
    await agent.says(/"path":"fan"/);
    await desire({ interval: 13, fan: { mode: null } });
    await agent.says(/not thirteen/);
    await it.hub.waitFor(
      (record) => record.of('twin').filter(({ operation }) => operation === 'PATCH').length >= 3,
    );
    await expect
      .poll(async () => {
        const twin = (await it.service.call('registry', 'getTwin', 'dev-01')) as {
          properties: { reported: object };
        };
        return twin.properties.reported;
      })
      .toMatchObject({
        interval: { value: 5, ac: 400, av: 3, ad: 'not thirteen' },
        fan: { value: { speed: 1 }, ac: 200, av: 3 },
      });
  });

  test('sees what is reported by hand', async () => {
    await using it = await setUp();
    expect((await it.device('twin', 'report', 'fw="1.2"', 'fan.speed=3').ended()).code).toBe(0);
    const twin = (await it.service.call('registry', 'getTwin', 'dev-01')) as {
      properties: { reported: object };
    };
    expect(twin.properties.reported).toMatchObject({ fw: '1.2', fan: { speed: 3 }, $version: 2 });
    await it.service.call('updateTwin', 'dev-01', { properties: { desired: { interval: 7 } } });
    expect((await it.device('twin', 'get', '--path', 'desired.interval').ended()).out).toBe('7\n');
  });
});
