import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { Latencies } from '../../src/cli/device/latency.js';
import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool } from './tool.js';

test('percentiles are two percent right, whatever the number and size', () => {
  const latencies = new Latencies();
  expect(latencies.at(0.5)).toBeUndefined();
  for (let ms = 1; ms <= 1_000; ms++) latencies.add(ms);
  for (const share of [0.5, 0.9, 0.99]) {
    expect(latencies.at(share)! / (share * 1_000)).toBeGreaterThan(0.979);
    expect(latencies.at(share)! / (share * 1_000)).toBeLessThan(1.021);
  }
  expect([latencies.count, latencies.longestMs, latencies.at(1)]).toEqual([1_000, 1_000, 1_000]);
  latencies.add(0);
  latencies.add(1e9);
  expect(latencies.at(0)).toBeLessThan(0.02);
});

test('bench sends at its rate, from each device, and says what came of it', async () => {
  await using hub = await startHub({ devices: [device, 'second'] });
  await using folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const csv = join(folder.path, 'bench.csv');
  const devices = join(folder.path, 'devices.txt');
  await writeFile(
    devices,
    `# two\n${hub.deviceConnectionString(device)}\n\n${hub.deviceConnectionString('second')}\n`,
  );
  const args = ['bench', '--devices', devices, '--rate', '40', '--size', '500', '--for', '2s', '--csv', csv];
  const { code, out, err } = await runTool('iothub-device', [...args, '-o', 'json'], { env });

  expect(code, err).toBe(0);
  const telemetry = hub.record.of('telemetry');
  const result = JSON.parse(out) as Record<string, number>;
  expect(result).toMatchObject({ devices: 2, bytes: 500, accepted: telemetry.length, failed: 0 });
  expect(telemetry.length).toBeGreaterThan(2);
  expect(telemetry.length).toBeLessThanOrEqual(82);
  expect(new Set(telemetry.map(({ deviceId }) => deviceId)).size).toBe(2);
  expect(telemetry.every(({ body }) => body.length === 500)).toBe(true);
  expect(result['p50Ms']).toBeLessThanOrEqual(result['maxMs']!);
  const [head, ...lines] = (await readFile(csv, 'utf8')).trim().split('\n');
  expect(head).toBe('seconds,accepted,failed,p50_ms,p90_ms,p99_ms,max_ms');
  expect(lines.length).toBeGreaterThan(0);
  for (const line of lines) expect(line).toMatch(/^\d+,\d+,0(,(\d+\.\d\d)?){4}$/);
});

test('bench says what the hub refused', async () => {
  await using hub = await startHub();
  await using folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const condition = 'amqp:not-allowed';
  hub.faults.add({
    at: 'transfer',
    link: 'telemetry',
    do: { act: 'answer', outcome: 'rejected', condition },
    times: 'always',
  });
  const args = ['bench', '--rate', '20', '--for', '500ms', '-o', 'text'];
  const { code, out } = await runTool('iothub-device', args, { env });
  expect(code).not.toBe(0);
  expect(out).toMatch(/^messages +0 accepted, \d+ not, 256 bytes each/);
});
