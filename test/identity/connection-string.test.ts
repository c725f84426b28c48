import fc from 'fast-check';
import { expect, test } from 'vitest';

import {
  decodedKey,
  hostName,
  hostPort,
  parseDeviceConnectionString,
  parseEventHubConnectionString,
  parseServiceConnectionString,
} from '../../src/identity/connection-string.js';

const key = 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=';

test('a device with a key', () => {
  const parsed = parseDeviceConnectionString(
    `HostName=hub.azure-devices.net;DeviceId=dev-01;SharedAccessKey=${key}`,
  );
  expect(parsed).toMatchObject({
    host: 'hub.azure-devices.net',
    deviceId: 'dev-01',
    credential: { kind: 'key' },
  });
  expect(parsed.credential.kind === 'key' && decodedKey(parsed.credential.key).toString()).toBe(
    '0123456789abcdef0123456789abcdef',
  );
});

test('a module behind a gateway, with names in any case and blanks around', () => {
  const parsed = parseDeviceConnectionString(
    ` hostname=h.net; DEVICEID=d ;ModuleId=m;GatewayHostName=gw;SharedAccessKey=${key};\n`,
  );
  expect(parsed).toMatchObject({ host: 'h.net', deviceId: 'd', moduleId: 'm', gatewayHost: 'gw' });
});

test('a device with a ready-made token, or with a certificate', () => {
  const token = 'SharedAccessSignature sr=h%2Fdevices%2Fd&sig=abc%3D&se=1';
  const parsed = parseDeviceConnectionString(`HostName=h;DeviceId=d;SharedAccessSignature=${token}`);
  expect(parsed.credential.kind === 'signature' && parsed.credential.signature.reveal()).toBe(token);
  expect(parseDeviceConnectionString('HostName=h;DeviceId=d;x509=true').credential).toEqual({ kind: 'x509' });
});

test('a host with a port', () => {
  const { host } = parseDeviceConnectionString(`HostName=localhost:15671;DeviceId=d;SharedAccessKey=${key}`);
  expect([host, hostName(host), hostPort(host, 5671)]).toEqual(['localhost:15671', 'localhost', 15671]);
  expect(hostPort('localhost', 5671)).toBe(5671);
});

test('a hub policy, and an Event Hubs endpoint', () => {
  expect(
    parseServiceConnectionString(`HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey=${key}`),
  ).toMatchObject({ host: 'h', credential: { kind: 'key', policyName: 'iothubowner' } });
  expect(
    parseEventHubConnectionString(
      `Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName=k;SharedAccessKey=any text;EntityPath=eh`,
    ),
  ).toMatchObject({ host: 'ns.servicebus.windows.net', entityPath: 'eh', developmentEmulator: false });
  expect(
    parseEventHubConnectionString('Endpoint=sb://localhost:5672;UseDevelopmentEmulator=true').credential,
  ).toEqual({ kind: 'none' });
});

test.each([
  ['nothing at all', ' ', /empty/],
  ['a missing host', `DeviceId=d;SharedAccessKey=${key}`, /HostName is missing/],
  ['a missing device', `HostName=h;SharedAccessKey=${key}`, /DeviceId is missing/],
  ['no credential', 'HostName=h;DeviceId=d', /no credential/],
  [
    'two credentials',
    `HostName=h;DeviceId=d;SharedAccessKey=${key};x509=true`,
    /two credentials, SharedAccessKey and x509/,
  ],
  ['a field twice', `HostName=h;HostName=i;DeviceId=d;SharedAccessKey=${key}`, /HostName is there twice/],
  ['a key that is not base64', 'HostName=h;DeviceId=d;SharedAccessKey=not base64', /not base64/],
  ['a key with a character lost', `HostName=h;DeviceId=d;SharedAccessKey=${key.slice(1)}`, /not base64/],
  ['a misspelt field', `HostName=h;DeviceID=d;SharedAcessKey=${key}`, /"SharedAcessKey" does not belong/],
  [
    'a URL for a host',
    `HostName=https://h/;DeviceId=d;SharedAccessKey=${key}`,
    /HostName is not a host name/,
  ],
  ['an impossible port', `HostName=h:99999;DeviceId=d;SharedAccessKey=${key}`, /impossible port/],
  ['a forbidden character', `HostName=h;DeviceId=a b;SharedAccessKey=${key}`, /does not allow/],
  ['a part without =', 'HostName=h;DeviceId', /part 2 is not of the form/],
  ['an empty value', 'HostName=;DeviceId=d', /HostName is empty/],
])('%s is named', (_title, text, why) => {
  expect(() => parseDeviceConnectionString(text)).toThrow(why);
});

test('a device connection string given to the service tool is recognised', () => {
  expect(() => parseServiceConnectionString(`HostName=h;DeviceId=d;SharedAccessKey=${key}`)).toThrow(
    /device connection string/,
  );
});

test('no error ever shows the key', () => {
  fc.assert(
    fc.property(fc.base64String({ minLength: 32, maxLength: 64 }), fc.nat(60), (secret, cut) => {
      const text = `HostName=h;DeviceId=d;SharedAccessKey=${secret}`;
      for (const damaged of [
        text.slice(0, -1 - (cut % 3)),
        text.replace('DeviceId=', ''),
        text.replace('SharedAccessKey=', ''),
      ]) {
        try {
          parseDeviceConnectionString(damaged);
        } catch (error) {
          expect(String(error)).not.toContain(secret.slice(0, 20));
        }
      }
    }),
  );
});
