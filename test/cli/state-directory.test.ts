import { describe, expect, test } from 'vitest';

import { storeDirectory } from '../../src/cli/state-directory.js';

const device = { host: 'hub.azure-devices.net', deviceId: 'dev-01' };
const place = (env: Record<string, string>, identity: Parameters<typeof storeDirectory>[1] = device) =>
  storeDirectory({ env }, identity);

test('what is configured is taken as it is', () => {
  expect(storeDirectory({ env: { STATE_DIRECTORY: '/var/lib/x' } }, device, '/srv/spool')).toBe('/srv/spool');
});

describe('without a configured one it lies', () => {
  test('where systemd says, in the first of several directories', () => {
    const env = { STATE_DIRECTORY: '/var/lib/agent:/var/lib/other', XDG_STATE_HOME: '/x', HOME: '/home/ada' };
    expect(place(env)).toBe('/var/lib/agent/hub.azure-devices.net_dev-01');
  });

  test('else where XDG says, unless that is a relative path', () => {
    expect(place({ XDG_STATE_HOME: '/x', HOME: '/home/ada' })).toBe(
      '/x/iothub-device/hub.azure-devices.net_dev-01',
    );
    expect(place({ XDG_STATE_HOME: 'x', HOME: '/home/ada' })).toBe(
      '/home/ada/.local/state/iothub-device/hub.azure-devices.net_dev-01',
    );
  });

  test('nowhere when nobody says: an error that tells what to set', () => {
    expect(() => place({ HOME: '' })).toThrow(
      expect.objectContaining({ code: 'config', hint: expect.stringContaining('[spool]') as unknown }),
    );
  });
});

describe('its name', () => {
  const name = (identity: Parameters<typeof storeDirectory>[1]) =>
    place({ XDG_STATE_HOME: '/x' }, identity).slice('/x/iothub-device/'.length);

  test('differs for a device and a module that look alike', () => {
    const names = [
      name({ ...device, deviceId: 'a', moduleId: 'b' }),
      name({ ...device, deviceId: 'a_b' }),
      name({ ...device, deviceId: 'a' }),
    ];
    expect(names[0]).toBe('hub.azure-devices.net_a_b');
    expect(new Set(names).size).toBe(3);
  });

  test('is the same however the host is written', () => {
    expect(name({ ...device, host: 'HUB.azure-devices.NET' })).toBe(name(device));
  });

  test('is a file name even for ids that are none', () => {
    expect(name({ host: 'localhost:5671', deviceId: "a/../b*?!$'" })).toBe(
      'localhost%3A5671_a%2F..%2Fb%2A%3F%21%24%27',
    );
  });

  test('is short enough for a file system, and still differs', () => {
    const long = '*'.repeat(127);
    const names = [name({ ...device, deviceId: `${long}1` }), name({ ...device, deviceId: `${long}2` })];
    expect(names[0]!.length).toBeLessThanOrEqual(200);
    expect(names[0]).not.toBe(names[1]);
  });
});
