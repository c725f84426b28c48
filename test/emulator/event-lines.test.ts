import { expect, test } from 'vitest';

import { eventJson, eventText } from '../../src/cli/emulator/event-lines.js';
import type { RecordEntry } from '../../src/emulator/emulator.js';

const telemetry = (body: Buffer, contentType?: string): RecordEntry => ({
  at: Date.parse('2026-01-01T12:00:00.123Z'),
  event: 'telemetry',
  connection: 1,
  deviceId: 'd',
  messageId: 'm1',
  contentType,
  userId: Buffer.from('me'),
  properties: { room: 'a' },
  annotations: {},
  body,
  outcome: { outcome: 'accepted' },
});

test('shows a body as what it is, and JSON as it was written', () => {
  const json = eventJson(telemetry(Buffer.from('{"n": 12345678901234567890}'), 'application/json'));
  expect(json).toContain('"body":{"n": 12345678901234567890}');
  expect(JSON.parse(json)).toMatchObject({ time: '2026-01-01T12:00:00.123Z', deviceId: 'd', userId: 'bWU=' });
  expect(JSON.parse(eventJson(telemetry(Buffer.from('plain'))))).toMatchObject({ bodyText: 'plain' });
  expect(JSON.parse(eventJson(telemetry(Buffer.from([0xff]))))).toMatchObject({ bodyBase64: '/w==' });
});

test('shows people one line each, and nothing that a terminal would obey', () => {
  const line = eventText(telemetry(Buffer.from('\u001b[2J{"t":1}\n')));
  expect(line).toMatch(/^12:00:00\.123 {2}telemetry {5}d {2}m1 {2}.*\{"t":1\}.* {2}accepted$/);

  expect(line).not.toMatch(/[\u0000-\u001f]/);
});
