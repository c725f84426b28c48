import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import {
  createSasToken,
  deviceResource,
  encodeResource,
  isSignedBy,
  parseSasToken,
} from '../../src/identity/sas.js';

const keyText = 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=';
const key = Buffer.from(keyText, 'base64');
const expiresAtSeconds = 1_767_225_600; // 2026-01-01T00:00:00Z
const host = 'hub.azure-devices.net';

describe('fixed vectors, equal to the tokens of the official Node SDK', () => {
  test('a device', () => {
    expect(createSasToken({ resource: deviceResource(host, 'dev-01'), key, expiresAtSeconds })).toBe(
      'SharedAccessSignature sr=hub.azure-devices.net%2Fdevices%2Fdev-01&sig=DoI%2B%2B3U%2FvurC8UpfKrcVAmVs3QqoTsVsyLnOgoJM%2FEk%3D&se=1767225600',
    );
  });

  test('a module', () => {
    expect(createSasToken({ resource: deviceResource(host, 'dev-01', 'mod-a'), key, expiresAtSeconds })).toBe(
      'SharedAccessSignature sr=hub.azure-devices.net%2Fdevices%2Fdev-01%2Fmodules%2Fmod-a&sig=8acXEzAuDqItjGGBWsBRamkWja%2BVtqI%2FMx%2Fl%2BTxuz4A%3D&se=1767225600',
    );
  });

  test('a device id with characters that encodeURIComponent leaves alone: a*b(c)!', () => {
    const token = createSasToken({ resource: deviceResource(host, 'a*b(c)!'), key, expiresAtSeconds });
    expect(token).toContain('sr=hub.azure-devices.net%2Fdevices%2Fa%2ab%28c%29%21&');
    expect(token).toContain('sig=T0rz0qroa8hN85%2BPm8pn5ZRfyUKXRw00qv%2BnZ7j5QIk%3D&');
  });

  test('a hub policy', () => {
    const token = createSasToken({ resource: host, key, expiresAtSeconds, policyName: 'iothubowner' });
    expect(parseSasToken(token)).toEqual(
      parseSasToken(
        'SharedAccessSignature sr=hub.azure-devices.net&sig=WvrX%2F97szeT06WOO6mNSCoA%2FvxjyOu5YqyUXo4ElPK0%3D&skn=iothubowner&se=1767225600',
      ),
    );
  });

  test('an Event Hubs partition, whose key is used as text', () => {
    expect(
      createSasToken({
        resource: 'sb://ns.servicebus.windows.net/eh/ConsumerGroups/$Default/Partitions/0',
        key: Buffer.from(keyText),
        expiresAtSeconds,
        policyName: 'service',
      }),
    ).toBe(
      'SharedAccessSignature sr=sb%3A%2F%2Fns.servicebus.windows.net%2Feh%2FConsumerGroups%2F%24Default%2FPartitions%2F0&sig=IyEuTR0tlRytRhjT%2FfU74RBy1rQmezRngT3NO1j%2FOzg%3D&se=1767225600&skn=service',
    );
  });
});

test('any token can be taken apart again and is signed by its key and by no other', () => {
  fc.assert(
    fc.property(
      fc.string({ minLength: 1, unit: 'grapheme' }),
      fc.uint8Array({ minLength: 1, maxLength: 64 }),
      fc.integer({ min: 1, max: 4_102_444_800 }),
      fc.option(fc.stringMatching(/^[A-Za-z][A-Za-z0-9 ]{0,20}$/), { nil: undefined }),
      (resource, keyBytes, seconds, policyName) => {
        const signingKey = Buffer.from(keyBytes);
        const token = parseSasToken(
          createSasToken({ resource, key: signingKey, expiresAtSeconds: seconds, policyName }),
        );
        expect(decodeURIComponent(token.encodedResource)).toBe(resource);
        expect(token.expiry).toBe(String(seconds));
        expect(token.policyName).toBe(policyName);
        expect(isSignedBy(token, [signingKey])).toBe(true);
        expect(isSignedBy(token, [Buffer.concat([signingKey, Buffer.from([1])])])).toBe(false);
      },
    ),
  );
});

test('the second of two keys signs as well as the first', () => {
  const token = parseSasToken(createSasToken({ resource: host, key, expiresAtSeconds }));
  expect(isSignedBy(token, [Buffer.from('other'), key])).toBe(true);
});

test('the case of the escapes in a foreign token does not matter, because it is verified as received', () => {
  const lower = createSasToken({ resource: host, key, expiresAtSeconds }).replace(host, 'hub%2fdevices%2fd');
  expect(isSignedBy(parseSasToken(lower), [key])).toBe(false);
  expect(parseSasToken(lower).encodedResource).toBe('hub%2fdevices%2fd');
});

test.each([
  ['no scheme', 'sr=a&sig=b&se=1', /does not read/],
  ['no expiry', 'SharedAccessSignature sr=a&sig=b', /se is missing/],
  ['an expiry in words', 'SharedAccessSignature sr=a&sig=b&se=soon', /not a number/],
  ['a field twice', 'SharedAccessSignature sr=a&sr=b&sig=b&se=1', /there twice/],
  ['a broken escape', 'SharedAccessSignature sr=a&sig=%G&se=1', /percent escape/],
])('%s is not a token', (_title, token, why) => {
  expect(() => parseSasToken(token)).toThrow(why);
});

test('a resource is encoded as the Node SDK does it', () => {
  expect(encodeResource("a/b!'()*")).toBe('a%2Fb%21%27%28%29%2a');
});
