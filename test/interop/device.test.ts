import { describe, expect, test } from 'vitest';

import { Sdk, mayUse443, startHub } from './sdk.js';

describe.skipIf(!mayUse443)('azure-iot-device over AMQP and WebSocket', () => {
  test.for(['amqp', 'ws'])('sends, receives and settles over %s', async (transport) => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await using device = await Sdk.start('device', hub);
    await device.call('open', hub.deviceConnectionString('dev-01'), { transport });
    const message = { body: '{"t":21.5}', messageId: 'm1', properties: { room: 'a' } };
    expect(await device.call('send', message)).toBe('MessageEnqueued');
    expect(hub.record.of('telemetry')[0]).toMatchObject({ messageId: 'm1', properties: { room: 'a' } });

    await device.call('receive');
    hub.sendCommand({
      deviceId: 'dev-01',
      messageId: 'c1',
      body: 'one',
      ack: 'full',
      properties: { k: 'v' },
    });
    expect(await device.next('message')).toEqual({
      messageId: 'c1',
      body: 'one',
      ack: 'full',
      properties: { k: 'v' },
    });
    await device.call('settle', 'c1', 'abandon');
    expect(await device.next('message')).toMatchObject({ messageId: 'c1' });
    await device.call('settle', 'c1', 'complete');
    hub.sendCommand({ deviceId: 'dev-01', messageId: 'c2' });
    await device.next('message');
    await device.call('settle', 'c2', 'reject');
    await hub.waitFor((record) => record.of('dead-letter').length > 0);
    expect(hub.record.of('outcome').map(({ messageId, outcome }) => [messageId, outcome.outcome])).toEqual([
      ['c1', 'released'],
      ['c1', 'accepted'],
      ['c2', 'rejected'],
    ]);
    expect(hub.queueDepth('dev-01')).toBe(0);
    await device.call('close');
  });

  test.for(['amqp', 'ws'])('answers methods and keeps its twin over %s', async (transport) => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await using device = await Sdk.start('device', hub);
    await using service = await Sdk.start('service', hub);
    await service.call('open', hub.serviceConnectionString());
    await device.call('open', hub.deviceConnectionString('dev-01'), { transport });

    await device.call('method', 'reboot', 207);
    const request = { methodName: 'reboot', payload: { in: 5 }, connectTimeoutInSeconds: 10 };
    expect(await service.call('invoke', 'dev-01', request)).toEqual({ status: 207, payload: { in: 5 } });
    for (const payload of [null, '', 'foo', {}]) {
      expect(await service.call('invoke', 'dev-01', { ...request, payload })).toEqual({
        status: 207,
        payload,
      });
    }

    expect(await device.call('twin')).toMatchObject({ desired: { $version: 1 } });
    const patch = { properties: { desired: { interval: 5, deep: { a: 1, b: 2 } } } };
    expect(await service.call('updateTwin', 'dev-01', patch)).toMatchObject({ interval: 5, $version: 2 });
    await hub.waitFor((record) => record.of('twin').some(({ operation }) => operation === 'PUT'));
    await service.call('updateTwin', 'dev-01', { properties: { desired: { deep: { a: null } } } });
    expect(await device.next('desired')).toBeDefined();
    await device.call('report', { fw: '1.2', gone: null });
    const twin = (await service.call('registry', 'getTwin', 'dev-01')) as { properties: object };
    expect(twin.properties).toMatchObject({
      desired: { interval: 5, deep: { b: 2 }, $version: 3 },
      reported: { fw: '1.2', $version: 2 },
    });
  });

  test('renews its token on the same connection', async () => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await using device = await Sdk.start('device', hub);
    await device.call('open', hub.deviceConnectionString('dev-01'), { tokenSeconds: 4 });
    await device.call('send', { body: 'x', messageId: 'm1' });
    await hub.waitFor((record) => record.of('token').length >= 3);
    expect(await device.call('send', { body: 'x', messageId: 'm2' })).toBe('MessageEnqueued');
    expect(hub.record.of('connected')).toHaveLength(1);
    expect(hub.record.of('detached')).toHaveLength(0);
  });

  test('speaks for a module', async () => {
    await using hub = await startHub({ devices: ['dev-01'] });
    hub.addDevice({ deviceId: 'dev-01', moduleId: 'mod a' });
    await using device = await Sdk.start('device', hub);
    await using service = await Sdk.start('service', hub);
    await service.call('open', hub.serviceConnectionString());
    await device.call('open', hub.deviceConnectionString('dev-01', 'mod a'), { module: true });
    await device.call('send', { body: 'x', messageId: 'm1' });
    expect(hub.record.of('telemetry')[0]).toMatchObject({ deviceId: 'dev-01', moduleId: 'mod a' });
    await device.call('method', 'ping', 200, { pong: true });
    const request = { methodName: 'ping', payload: null, connectTimeoutInSeconds: 10 };
    expect(await service.call('invokeModule', 'dev-01', 'mod a', request)).toEqual({
      status: 200,
      payload: { pong: true },
    });
  });

  test.for(['amqp', 'ws'])('proves itself by certificate over %s', async (transport) => {
    await using hub = await startHub();
    hub.addDevice('by-ca', { type: 'certificateAuthority' });
    const good = await hub.issueDeviceCertificate('by-ca');
    const other = await hub.issueDeviceCertificate('someone-else');
    for (const [certificate, ok] of [
      [good, true],
      [other, false],
    ] as const) {
      await using device = await Sdk.start('device', hub);
      const options = { cert: certificate.certificate, key: certificate.key };
      await device.call('open', hub.deviceConnectionString('by-ca'), { transport, certificate: options });
      const sending = device.call('send', { body: 'x', messageId: 'm1' });
      if (ok) expect(await sending).toBe('MessageEnqueued');
      else await expect(sending).rejects.toMatchObject({ name: 'UnauthorizedError' });
    }
  });

  test('is refused as UnauthorizedError, and at once', async () => {
    await using hub = await startHub({ devices: ['dev-01', 'off'] });
    const good = hub.deviceConnectionString('dev-01');
    hub.setDeviceStatus('off', 'disabled');
    for (const [why, string] of [
      ['wrong key', good.replace(/SharedAccessKey=.*/, 'SharedAccessKey=AAAABBBBCCCCDDDD')],
      ['unknown device', good.replace('dev-01', 'nobody')],
      ['disabled', hub.deviceConnectionString('off')],
    ] as const) {
      await using device = await Sdk.start('device', hub);
      const opening = device.call('open', string, { retry: true });
      await expect(opening, why).rejects.toMatchObject({ name: 'UnauthorizedError' });
    }
  });

  test.for([
    ['amqp:internal-error', 'InternalServerError'],
    ['amqp:not-found', 'DeviceNotFoundError'],
    ['amqp:unauthorized-access', 'UnauthorizedError'],
    ['amqp:not-allowed', 'InvalidOperationError'],
    ['amqp:resource-limit-exceeded', 'IotHubQuotaExceededError'],
    ['amqp:link:message-size-exceeded', 'MessageTooLargeError'],
    ['com.microsoft:timeout', 'ServiceUnavailableError'],
    ['com.microsoft:device-container-throttled', 'ThrottlingError'],
    ['com.microsoft:message-lock-lost', 'DeviceMessageLockLostError'],
    ['com.microsoft:argument-error', 'ArgumentError'],
  ])('maps %s to %s', async ([condition, name]) => {
    await using hub = await startHub({ devices: ['dev-01'] });
    hub.faults.add({ at: 'transfer', link: 'telemetry', do: { act: 'refuse', condition: condition! } });
    await using device = await Sdk.start('device', hub);
    await device.call('open', hub.deviceConnectionString('dev-01'));
    await expect(device.call('send', { body: '', messageId: 'm' })).rejects.toMatchObject({ name });
  });
});
