import { describe, expect, test } from 'vitest';

import { Reports, type Acknowledgement } from '../../src/agent/reports.js';
import { AgentError } from '../../src/errors.js';
import { silentLog } from '../../src/log.js';

function ack(path: string, fields: Partial<Acknowledgement> = {}): Acknowledgement {
  return { path, version: 7, status: 200, description: undefined, value: 1, ...fields };
}

async function sent(reports: Reports, refuse: (patch: string) => boolean = () => false): Promise<unknown[]> {
  const patches: unknown[] = [];
  await reports.sendAll((patch) => {
    if (refuse(patch)) return Promise.reject(new AgentError('data', 'too large'));
    patches.push(JSON.parse(patch));
    return Promise.resolve();
  });
  return patches;
}

function reportsOf(...acknowledgements: Acknowledgement[]): Reports {
  const reports = new Reports(silentLog);
  for (const each of acknowledgements) reports.add(each);
  return reports;
}

test('an acknowledgement is value, code, version and description under the name of the property', async () => {
  const reports = reportsOf(ack('interval', { value: 5, description: 'done' }));
  expect(await sent(reports)).toEqual([{ interval: { value: 5, ac: 200, av: 7, ad: 'done' } }]);
  expect(reports.isEmpty).toBe(true);
});

test('without a description the former one is taken out; a value that nobody knows stays as it was', async () => {
  expect(await sent(reportsOf(ack('fan.speed', { status: 400, value: undefined })))).toEqual([
    { fan: { speed: { ac: 400, av: 7, ad: null } } },
  ]);
});

test('an object takes out what the former one had besides', async () => {
  const reports = reportsOf(ack('fan', { value: { speed: 2 } }));
  reports.read({ fan: { value: { speed: 1, mode: 'x' }, ac: 200 } });
  expect(await sent(reports)).toEqual([
    { fan: { value: { speed: 2, mode: null }, ac: 200, av: 7, ad: null } },
  ]);
});

test('what the handler reports besides goes along, and has the last word', async () => {
  const more = { interval: { value: 10 }, firmware: '1.2' };
  expect(await sent(reportsOf(ack('interval', { value: 5, more })))).toEqual([
    { interval: { value: 10, ac: 200, av: 7, ad: null }, firmware: '1.2' },
  ]);
});

describe('several go out', () => {
  test('together when they touch different properties', async () => {
    expect(await sent(reportsOf(ack('a'), ack('b'), ack('c.d')))).toHaveLength(1);
  });

  test('one after the other when they touch the same', async () => {
    const patches = await sent(reportsOf(ack('a.x'), ack('b', { more: { c: 1 } }), ack('a.y'), ack('c')));
    expect(patches.map((patch) => Object.keys(patch as object))).toEqual([
      ['a', 'b', 'c'],
      ['a', 'c'],
    ]);
  });

  test('only the newest of one property, unless an older one carries more', async () => {
    const reports = reportsOf(ack('a', { version: 1 }), ack('b', { version: 1, more: { x: 1 } }));
    reports.add(ack('a', { version: 2 }));
    reports.add(ack('b', { version: 2 }));
    expect(await sent(reports)).toEqual([
      { b: { value: 1, ac: 200, av: 1, ad: null }, x: 1, a: { value: 1, ac: 200, av: 2, ad: null } },
      { b: { value: 1, ac: 200, av: 2, ad: null } },
    ]);
  });
});

describe('when the hub refuses', () => {
  test('a patch for several, each goes alone, and only the one it means goes without its value', async () => {
    const reports = reportsOf(ack('a'), ack('big', { value: 'x'.repeat(100) }), ack('c'));
    const patches = await sent(reports, (patch) => patch.length > 120);
    expect(patches).toEqual([
      { a: { value: 1, ac: 200, av: 7, ad: null } },
      { big: { ac: 200, av: 7, ad: expect.stringContaining('refused') as string } },
      { c: { value: 1, ac: 200, av: 7, ad: null } },
    ]);
  });

  test('even the bare acknowledgement, it is dropped', async () => {
    const reports = reportsOf(ack('a'), ack('b'));
    expect(await sent(reports, (patch) => patch.includes('"a"'))).toHaveLength(1);
    expect(reports.isEmpty).toBe(true);
  });
});

test('what could not be sent waits, and goes out with what came after it', async () => {
  const reports = reportsOf(ack('a'));
  const lost = new AgentError('unavailable', 'the link is gone');
  await expect(reports.sendAll(() => Promise.reject(lost))).rejects.toBe(lost);
  reports.add(ack('b'));
  expect(await sent(reports)).toEqual([
    { a: { value: 1, ac: 200, av: 7, ad: null }, b: { value: 1, ac: 200, av: 7, ad: null } },
  ]);
});
