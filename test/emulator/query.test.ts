import { expect, test } from 'vitest';

import { parseQuery } from '../../src/emulator/rest/query.js';

const twins = [
  { deviceId: 'a', status: 'enabled', tags: { room: 'x', floor: 1 }, properties: { desired: { on: true } } },
  {
    deviceId: 'b',
    status: 'disabled',
    tags: { room: 'y', floor: 2 },
    properties: { desired: { on: false } },
  },
  { deviceId: 'c', status: 'enabled', tags: {}, properties: { desired: {} } },
];

test.for([
  ['SELECT * FROM devices', 'abc'],
  ["select * from devices where deviceId = 'a'", 'a'],
  ["SELECT * FROM devices c WHERE c.tags.room != 'x'", 'b'],
  ["SELECT * FROM devices WHERE devices.tags.floor >= 1 AND status = 'enabled'", 'a'],
  ["SELECT * FROM devices WHERE tags.room = 'y' OR NOT is_defined(tags.room)", 'bc'],
  ["SELECT * FROM devices WHERE (deviceId = 'a' OR deviceId = 'b') AND properties.desired.on = false", 'b'],
  ["SELECT * FROM devices WHERE deviceId IN ['a', 'c']", 'ac'],
  ["SELECT * FROM devices WHERE tags.room NIN ['x']", 'bc'],
  ["SELECT * FROM devices WHERE startswith(tags.room, 'x')", 'a'],
])('%s', ([query, expected]) => {
  expect(idsOf(query!)).toBe(expected);
});

test('selects columns under their names, and counts', () => {
  expect(run("SELECT deviceId, tags.floor AS floor FROM devices WHERE deviceId = 'b'")).toEqual([
    { deviceId: 'b', floor: 2 },
  ]);
  expect(run("SELECT COUNT() AS n FROM devices WHERE status = 'enabled'")).toEqual([{ n: 2 }]);
});

test('reads a quote in a value that is written twice', () => {
  expect(idsOf("SELECT * FROM devices WHERE tags.room = 'it''s'")).toBe('');
});

test.for([
  'SELECT',
  'SELECT * FROM jobs',
  'SELECT * FROM devices WHERE',
  "SELECT * FROM devices WHERE deviceId ~ 'a'",
  "SELECT * FROM devices WHERE deviceId = 'a' deviceId",
  'SELECT AVG() FROM devices',
])('says that it cannot read %s', (query) => {
  expect(() => run(query)).toThrow('the query cannot be read');
});

function run(query: string): object[] {
  const { matches, select } = parseQuery(query);
  return select(twins.filter(matches));
}

function idsOf(query: string): string {
  return run(query)
    .map((twin) => (twin as { deviceId: string }).deviceId)
    .join('');
}
