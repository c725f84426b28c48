/** The page about the way to the hub: its configurations are read, its flags and variables are there. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { run } from '../src/cli/main.js';
import { parseConfig } from '../src/daemon/config.js';
import { fakeIo } from './cli/fake-io.js';

const page = readFileSync(join(import.meta.dirname, '../docs/connection.md'), 'utf8');

async function printed(...args: string[]): Promise<string> {
  const io = fakeIo();
  expect(await run('iothub-device', args, io), io.err).toBe(0);
  return io.out;
}

test('its configurations can be used', () => {
  const blocks = [...page.matchAll(/^```toml\n([^]*?)^```/gm)].map(([, text = '']) => text);
  expect(blocks).toHaveLength(3);
  const hubs = blocks.map((text) => parseConfig(text, '/etc/iothub-device/config.toml').hub);
  expect(hubs).toMatchObject([
    { transport: 'amqp-ws', proxy: { from: 'credential', name: 'proxy-url' } },
    { host: 'myhub.azure-devices.net', certificate: { key: { from: 'credential', name: 'device-key' } } },
    { gatewayHost: 'edge.plant.example', ca: '/etc/iothub-device/edge-ca.pem' },
  ]);
});

test('its flags and variables are there', async () => {
  const help = await printed('send', '--help');
  const flags = new Set([...page.matchAll(/`(--[a-z-]+)/g)].map(([, flag = '']) => flag));
  expect(flags.size).toBeGreaterThan(8);
  for (const flag of flags) expect(help).toContain(flag);
  const environment = await printed('help', 'environment');
  const variables = new Set([...page.matchAll(/\$(IOTHUB_\w+)/g)].map(([, name = '']) => name));
  for (const name of variables) expect(environment).toContain(name);
});

test('help connection says the same in short', async () => {
  const text = await printed('help', 'connection');
  for (const word of ['auto', 'amqp-ws', 'NO_PROXY', '--ca', 'x509=true', '--gateway-host'])
    expect(text).toContain(word);
});
