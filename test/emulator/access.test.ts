import { expect, test } from 'vitest';

import { startEmulator } from '../../src/emulator/emulator.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { makeCertificate } from '../../src/emulator/certificates.js';
import {
  connect,
  connectDevice,
  connectService,
  happens,
  openReceiver,
  openSender,
  sas,
  send,
} from './client.js';

const events = '/devices/d/messages/events';

test.for([
  [
    'another host',
    (hub: Emulator) => sas('elsewhere.azure-devices.net/devices/d', deviceKey(hub)),
    'another host',
  ],
  ['an unknown device', (hub: Emulator) => sas(`${hub.hostName}/devices/x`, deviceKey(hub)), 'no device'],
  [
    'an unknown policy',
    (hub: Emulator) => sas(hub.hostName, deviceKey(hub), { policyName: 'root' }),
    'no policy',
  ],
  [
    'the past',
    (hub: Emulator) => sas(`${hub.hostName}/devices/d`, deviceKey(hub), { expiresInSeconds: -1 }),
    'expired',
  ],
  ['nothing', () => 'SharedAccessSignature nonsense', 'not a SAS token'],
] as const)('refuses a token for %s', async ([, token, reason]) => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connect(hub);
  expect(await client.putToken(token(hub), 'any name')).toEqual({
    status: 401,
    description: expect.stringContaining(reason) as string,
  });
});

test('takes the secondary key, and a device token of the policy "device"', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  const { authentication } = hub.device('d');
  const secondary = authentication.type === 'sas' ? authentication.secondaryKey : '';
  const resource = `${hub.hostName}/devices/d`;
  for (const token of [
    sas(resource, secondary),
    sas(resource, policyKey(hub, 'device'), { policyName: 'device' }),
    sas(hub.hostName, policyKey(hub, 'iothubowner'), { policyName: 'iothubowner' }),
  ]) {
    await using client = await connect(hub);
    expect(await client.putToken(token, resource)).toMatchObject({ status: 200 });
    await openSender(await client.session(), events);
  }
});

test('lets a device do nothing but what its token is for', async () => {
  await using hub = await startEmulator({ devices: ['d', 'other'] });
  hub.addDevice({ deviceId: 'd', moduleId: 'm' });
  await using client = await connectDevice(hub, 'd');
  const session = await client.session();
  await openSender(session, '/devices/d/modules/m/messages/events');
  for (const address of ['/devices/other/messages/events', '/messages/devicebound']) {
    await expect(openSender(session, address)).rejects.toThrow('amqp:unauthorized-access');
  }
  await expect(openReceiver(session, '/messages/serviceBound/feedback')).rejects.toThrow(
    'amqp:unauthorized-access',
  );
  await expect(openSender(session, '/devices/d/messages/nonsense')).rejects.toThrow('amqp:not-found');
});

test('lets a service do only what its narrowed token names', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connect(hub);
  const resource = `${hub.hostName}/messages/devicebound`;
  const token = sas(resource, policyKey(hub, 'service'), { policyName: 'service' });
  expect(await client.putToken(token, resource)).toMatchObject({ status: 200 });
  const session = await client.session();
  await openSender(session, '/messages/deviceBound');
  await expect(openReceiver(session, '/messages/servicebound/feedback')).rejects.toThrow(
    'amqp:unauthorized-access',
  );
});

test('lets a policy do only what it has a right to', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectService(hub, 'registryRead');
  await expect(openSender(await client.session(), '/messages/devicebound')).rejects.toThrow(
    'amqp:unauthorized-access',
  );
});

test('detaches when the token expires, but not when it was renewed', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  const sender = await openSender(await client.session(), events);
  const resource = `${hub.hostName}/devices/d`;
  hub.jumpClock(3_590_000);
  const renewed = sas(resource, deviceKey(hub), { expiresInSeconds: 7200 });
  expect(await client.putToken(renewed, resource)).toMatchObject({ status: 200 });
  hub.jumpClock(20_000);
  expect(await send(sender, {})).toEqual({ outcome: 'accepted' });
  const detached = happens(sender, 'sender_error');
  hub.jumpClock(7_200_000);
  await detached;
  expect(sender.error).toMatchObject({ condition: 'amqp:unauthorized-access' });
});

test('expires a token on request', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  const sender = await openSender(await client.session(), events);
  const detached = happens(sender, 'sender_error');
  expect(hub.expireTokens('d')).toBe(1);
  await detached;
});

test('lets the newest connection of a device have its links', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using first = await connectDevice(hub, 'd');
  const sender = await openSender(await first.session(), events);
  const detached = happens(sender, 'sender_error');
  await using second = await connectDevice(hub, 'd');
  await openSender(await second.session(), events);
  await detached;
  expect(sender.error).toMatchObject({ condition: 'amqp:link:stolen' });
});

test('detaches a device that is disabled or deleted, and refuses it from then on', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  const session = await client.session();
  const sender = await openSender(session, events);
  const disabled = happens(sender, 'sender_error');
  hub.setDeviceStatus('d', 'disabled');
  await disabled;
  await expect(openSender(session, events)).rejects.toThrow('amqp:unauthorized-access');
  await expect(connectDevice(hub, 'd')).rejects.toThrow('401');
  hub.setDeviceStatus('d', 'enabled');
  const again = await openSender(session, events);
  const deleted = happens(again, 'sender_error');
  hub.removeDevice('d');
  await deleted;
  expect(again.error).toMatchObject({ condition: 'amqp:not-found' });
  hub.addDevice('d');
  await expect(openSender(session, events)).rejects.toThrow('amqp:unauthorized-access');
});

test('knows a certificate by its thumbprint, and by its chain and name', async () => {
  await using hub = await startEmulator();
  const selfSigned = await makeCertificate({ commonName: 'x', usage: 'client', now: Date.now() });
  const issued = await hub.issueDeviceCertificate('chained');
  const { X509Certificate } = await import('node:crypto');
  const thumbprint = new X509Certificate(selfSigned.certificate).fingerprint.replaceAll(':', '');
  hub.addDevice('pinned', { type: 'selfSigned', primaryThumbprint: thumbprint, secondaryThumbprint: '' });
  hub.addDevice('chained', { type: 'certificateAuthority' });
  hub.addDevice('other', { type: 'certificateAuthority' });
  const may = async (certificate: typeof issued, deviceId: string): Promise<boolean> => {
    await using client = await connect(hub, { cert: certificate.certificate, key: certificate.key });
    const opening = openSender(await client.session(), `/devices/${deviceId}/messages/events`);
    return await opening.then(
      () => true,
      () => false,
    );
  };
  expect(await may(selfSigned, 'pinned')).toBe(true);
  expect(await may(issued, 'pinned')).toBe(false);
  expect(await may(issued, 'chained')).toBe(true);
  expect(await may(issued, 'other')).toBe(false);
  expect(await may(selfSigned, 'chained')).toBe(false);
});

test.for(['ANONYMOUS', 'MSSBCBS', 'PLAIN', 'none'])(
  'lets in a client that begins with SASL %s',
  async (mechanism) => {
    await using hub = await startEmulator({ devices: ['d'] });
    const resource = `${hub.hostName}/devices/d`;
    const token = sas(resource, deviceKey(hub));
    const plain = `\0d@sas.localhost\0${token}`;
    const start = (callback: (error: undefined, response: Buffer) => void): void => {
      callback(undefined, Buffer.from(mechanism === 'PLAIN' ? plain : ''));
    };
    const options = mechanism === 'none' ? {} : { sasl_mechanisms: { [mechanism]: () => ({ start }) } };
    await using client = await connect(hub, options);
    if (mechanism !== 'PLAIN') await client.putToken(token, resource);
    const sender = await openSender(await client.session(), events);
    expect(await send(sender, {})).toEqual({ outcome: 'accepted' });
  },
);

test('closes the door to a wrong PLAIN password', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  const start = (callback: (error: undefined, response: Buffer) => void): void => {
    callback(undefined, Buffer.from('\0d@sas.localhost\0wrong'));
  };
  const mechanisms = { PLAIN: () => ({ start }) };
  await expect(connect(hub, { sasl_mechanisms: mechanisms })).rejects.toThrow();
});

function deviceKey(hub: Emulator): string {
  return /SharedAccessKey=(.*)/.exec(hub.deviceConnectionString('d'))![1]!;
}

function policyKey(hub: Emulator, policy: string): string {
  return /SharedAccessKey=(.*)/.exec(hub.serviceConnectionString(policy))![1]!;
}
