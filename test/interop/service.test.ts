import { describe, expect, test } from 'vitest';

import { Sdk, mayUse443, startHub } from './sdk.js';

describe.skipIf(!mayUse443)('azure-iothub', () => {
  test.for(['amqp', 'ws'])('sends commands over %s and hears what became of them', async (transport) => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await using device = await Sdk.start('device', hub);
    await using service = await Sdk.start('service', hub);
    await service.call('open', hub.serviceConnectionString('service'), { transport });
    await service.call('feedback');
    await service.call('notifications');
    await device.call('open', hub.deviceConnectionString('dev-01'));
    await device.call('receive');
    const wanted = [
      ['full', 'complete', 'Success'],
      ['positive', 'complete', 'Success'],
      ['negative', 'reject', 'Rejected'],
    ] as const;
    for (const [ack, how, statusCode] of wanted) {
      const messageId = `c-${ack}`;
      await service.call('send', 'dev-01', { body: 'x', messageId, ack });
      expect(await device.next('message')).toMatchObject({ messageId, ack });
      await device.call('settle', messageId, how);
      expect(await service.next('feedback')).toMatchObject([
        { originalMessageId: messageId, statusCode, deviceId: 'dev-01' },
      ]);
    }
    await service.call('send', 'dev-01', { body: 'x', messageId: 'c-none' });
    await device.next('message');
    await device.call('settle', 'c-none', 'complete');
    await service.call('close');
  });

  test('is told when a queue is full, and when there is no such device', async () => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await using service = await Sdk.start('service', hub);
    await service.call('open', hub.serviceConnectionString());
    for (let i = 0; i < 50; i++) await service.call('send', 'dev-01', { body: 'x', messageId: `c${i}` });
    await expect(service.call('send', 'dev-01', { body: 'x' })).rejects.toMatchObject({
      name: 'DeviceMaximumQueueDepthExceededError',
    });
    await expect(service.call('send', 'nobody', { body: 'x' })).rejects.toMatchObject({
      name: 'DeviceNotFoundError',
    });
  });

  test('keeps the registry: create, get, update, list, bulk, delete', async () => {
    await using hub = await startHub();
    await using service = await Sdk.start('service', hub);
    await service.call('open', hub.serviceConnectionString());
    const registry = async (...args: unknown[]): Promise<Record<string, unknown>> =>
      (await service.call('registry', ...args)) as Record<string, unknown>;
    const created = await registry('create', { deviceId: 'a b'.replace(' ', '-'), status: 'enabled' });
    expect(created).toMatchObject({ deviceId: 'a-b', status: 'enabled', authentication: { type: 'sas' } });
    await expect(registry('create', { deviceId: 'a-b' })).rejects.toMatchObject({
      name: 'DeviceAlreadyExistsError',
    });
    await expect(registry('create', { deviceId: 'a/b' })).rejects.toMatchObject({ name: 'ArgumentError' });
    expect(await registry('update', { deviceId: 'a-b', status: 'disabled' })).toMatchObject({
      status: 'disabled',
    });
    expect(await registry('get', 'a-b')).toMatchObject({ authentication: created['authentication'] });
    const bulk = await registry('addDevices', [{ deviceId: 'b1' }, { deviceId: 'b2' }]);
    expect(bulk).toMatchObject({ isSuccessful: true, errors: [] });
    expect(await registry('list')).toHaveLength(3);
    expect(await registry('getRegistryStatistics')).toMatchObject({
      totalDeviceCount: 3,
      disabledDeviceCount: 1,
    });
    const module = await registry('addModule', { deviceId: 'b1', moduleId: 'm' });
    expect(module).toMatchObject({ moduleId: 'm' });
    expect(await registry('getModulesOnDevice', 'b1')).toHaveLength(1);
    await registry('removeModule', 'b1', 'm');
    await expect(registry('getModule', 'b1', 'm')).rejects.toThrow();
    await registry('removeDevices', [{ deviceId: 'b1' }, { deviceId: 'b2' }], true);
    await registry('delete', 'a-b');
    await expect(registry('get', 'a-b')).rejects.toMatchObject({ name: 'DeviceNotFoundError' });
  });

  test('queries twins page by page', async () => {
    await using hub = await startHub({ devices: ['q1', 'q2', 'q3'] });
    await using service = await Sdk.start('service', hub);
    await service.call('open', hub.serviceConnectionString());
    await service.call('registry', 'updateTwin', 'q2', { tags: { room: 'a', floor: 2 } }, '*');
    const ids = async (sql: string, size = 100): Promise<string[][]> =>
      ((await service.call('query', sql, size)) as { deviceId: string }[][]).map((page) =>
        page.map(({ deviceId }) => deviceId),
      );
    expect(await ids('SELECT * FROM devices', 2)).toEqual([['q1', 'q2'], ['q3']]);
    expect(await ids("SELECT * FROM devices WHERE tags.room = 'a' AND tags.floor >= 2")).toEqual([['q2']]);
    expect(
      await ids("SELECT * FROM devices WHERE deviceId IN ['q1', 'q3'] AND NOT is_defined(tags.room)"),
    ).toEqual([['q1', 'q3']]);
    await expect(service.call('query', 'SELEKT', 10)).rejects.toMatchObject({ name: 'ArgumentError' });
  });

  test('is told which rights a policy lacks, and that etags differ', async () => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await using service = await Sdk.start('service', hub);
    await service.call('open', hub.serviceConnectionString('service'));
    await expect(service.call('registry', 'get', 'dev-01')).rejects.toMatchObject({
      name: 'UnauthorizedError',
    });
    expect(await service.call('registry', 'getTwin', 'dev-01')).toMatchObject({ deviceId: 'dev-01' });
    const stale = service.call('registry', 'updateTwin', 'dev-01', { tags: { a: 1 } }, 'AAAAAAAAAAA=');
    await expect(stale).rejects.toMatchObject({ name: 'InvalidEtagError' });
    await expect(service.call('invoke', 'dev-01', { methodName: 'x', payload: null })).rejects.toThrow();
  });
});
