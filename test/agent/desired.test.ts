import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { changesToHandOn, DesiredProperties, type Change } from '../../src/agent/desired.js';
import { descend, difference, merged, type JsonObject } from '../../src/agent/merge-patch.js';
import { json } from './json.js';

const paths = (changes: readonly Change[]): unknown[] => changes.map(({ path, value }) => [path, value]);
const told = (outcome: ReturnType<DesiredProperties['notified']>): Change[] => {
  if (typeof outcome === 'string') throw new Error(outcome);
  return outcome;
};

describe('desired properties', () => {
  test('are all new at first, and then only what changed', () => {
    const desired = new DesiredProperties();
    expect(paths(desired.read({ version: 4, properties: { a: 1, b: { c: 2 } } }))).toEqual([
      ['a', 1],
      ['b', { c: 2 }],
    ]);
    expect(desired.read({ version: 4, properties: { a: 1, b: { c: 2 } } })).toEqual([]);
    expect(paths(desired.read({ version: 9, properties: { b: { c: 3 } } }))).toEqual([
      ['a', null],
      ['b', { c: 3 }],
    ]);
  });

  test('of an earlier version are those of a twin that was made anew', () => {
    const desired = new DesiredProperties();
    desired.read({ version: 40, properties: { a: 1 } });
    expect(paths(desired.read({ version: 1, properties: {} }))).toEqual([['a', null]]);
    expect(paths(told(desired.notified({ version: 2, properties: { a: 2 } })))).toEqual([['a', 2]]);
  });

  test('come with the whole value of each property, and the version that it has it in', () => {
    const desired = new DesiredProperties();
    desired.read({ version: 1, properties: { fan: { speed: 1, mode: 'x' } } });
    expect(told(desired.notified({ version: 2, properties: { fan: { speed: 2 } } }))).toEqual([
      {
        path: 'fan',
        value: { speed: 2, mode: 'x' },
        version: 2,
        inside: [{ path: 'fan.speed', value: 2, version: 2, inside: [] }],
      },
    ]);
  });

  test('that are set again to the same value count as changed: the service waits for an acknowledgement', () => {
    const desired = new DesiredProperties();
    desired.read({ version: 1, properties: { a: 1 } });
    expect(paths(told(desired.notified({ version: 2, properties: { a: 1 } })))).toEqual([['a', 1]]);
  });

  test('that are gone take all that was inside with them', () => {
    const desired = new DesiredProperties();
    desired.read({ version: 1, properties: { fan: { speed: 1 } } });
    const [change] = told(desired.notified({ version: 2, properties: { fan: null, never: null } }));
    expect(change).toMatchObject({ path: 'fan', value: null, inside: [{ path: 'fan.speed', value: null }] });
  });

  test('that come twice, late or too early are seen through', () => {
    const desired = new DesiredProperties();
    expect(desired.notified({ version: 2, properties: { a: 2 } })).toBe('missed');
    desired.read({ version: 5, properties: { a: 5 } });
    for (const version of [1, 4, 5]) {
      expect(desired.notified({ version, properties: { a: version } })).toBe('known');
    }
    expect(desired.notified({ version: 7, properties: { a: 7 } })).toBe('missed');
    expect(paths(told(desired.notified({ version: 6, properties: { a: 6 } })))).toEqual([['a', 6]]);
  });

  test('end as the hub has them, each change once, whatever gets lost, doubled or overtaken on the way', () => {
    const step = fc.record({
      patch: json,
      fate: fc.constantFrom('comes', 'is lost', 'comes twice', 'comes late'),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), json, (steps, start) => {
        const desired = new DesiredProperties();
        let hub = { version: 1, properties: start };
        let device: JsonObject = {};
        const seen = new Set<string>();
        const apply = (changes: readonly Change[]) => {
          for (const { path, value, version } of changes) {
            expect(seen.has(`${path} ${version}`)).toBe(false);
            seen.add(`${path} ${version}`);
            const target = value === null ? {} : { [path]: value };
            device = merged(device, difference({ [path]: device[path] }, target));
          }
        };
        const read = () => {
          apply(desired.read(hub));
        };
        const notify = (section: typeof hub) => {
          const outcome = desired.notified(section);
          if (outcome === 'missed') read();
          else if (outcome !== 'known') apply(outcome);
        };
        read();
        const late: (typeof hub)[] = [];
        for (const { patch, fate } of steps) {
          hub = { version: hub.version + 1, properties: merged(hub.properties, patch) };
          const notification = { version: hub.version, properties: patch };
          if (fate === 'comes late') late.push(notification);
          if (fate === 'comes' || fate === 'comes twice') notify(notification);
          if (fate === 'comes twice') notify(notification);
        }
        for (const notification of late) notify(notification);
        read(); // the reconnect
        expect(device).toEqual(hub.properties);
      }),
    );
  });
});

describe('a change is handed on', () => {
  const changes = (before: JsonObject, after: JsonObject): Change[] => {
    const desired = new DesiredProperties();
    desired.read({ version: 1, properties: before });
    return desired.read({ version: 2, properties: after });
  };
  const takenBy = (routes: [string, (path: string) => boolean][]) => (change: Change) =>
    routes.find(([, fits]) => fits(change.path))?.[0];
  const below = (wanted: string) => (path: string) => path === wanted || path.startsWith(`${wanted}.`);
  const all = () => true;
  const fan = changes({}, { fan: { speed: 1, mode: { auto: true } }, other: 1 });

  test.each<[string, [string, (path: string) => boolean][], unknown[]]>([
    ['by its own name, whole, to who takes everything', [['all', all]], ['fan', 'other']],
    ['to nobody when nobody takes it', [['x', below('x')]], []],
    ['inside, where nobody takes the whole', [['speed', below('fan.speed')]], ['fan.speed']],
    [
      'inside to who comes first, the rest whole to the next',
      [
        ['speed', below('fan.speed')],
        ['all', all],
      ],
      ['fan.speed', 'fan', 'other'],
    ],
    [
      'whole to who comes first',
      [
        ['all', all],
        ['speed', below('fan.speed')],
      ],
      ['fan', 'other'],
    ],
    [
      'not to the next when the first ones have taken all of it',
      [
        ['speed', below('fan.speed')],
        ['auto', below('fan.mode.auto')],
        ['fan', below('fan')],
      ],
      ['fan.speed', 'fan.mode.auto'],
    ],
  ])('%s', (_title, routes, wanted) => {
    expect(changesToHandOn(fan, takenBy(routes)).map(({ path }) => path)).toEqual(wanted);
  });

  test('only where it happened', () => {
    const speed = changes({ fan: { speed: 1, mode: 2 } }, { fan: { speed: 2, mode: 2 } });
    const routes: [string, (path: string) => boolean][] = [
      ['mode', below('fan.mode')],
      ['fan', below('fan')],
    ];
    expect(paths(changesToHandOn(speed, takenBy(routes)))).toEqual([['fan', { speed: 2, mode: 2 }]]);
  });

  test('as null to all that it took away', () => {
    const gone = changes({ fan: { speed: 1 } }, {});
    expect(paths(changesToHandOn(gone, takenBy([['speed', below('fan.speed')]])))).toEqual([
      ['fan.speed', null],
    ]);
  });
});

test('the value of a change is what stands in the section', () => {
  fc.assert(
    fc.property(json, json, (before, after) => {
      const desired = new DesiredProperties();
      desired.read({ version: 1, properties: before });
      const check = (change: Change): void => {
        expect(descend(after, change.path.split('.')) ?? null).toEqual(change.value);
        change.inside.forEach(check);
      };
      desired.read({ version: 2, properties: after }).forEach(check);
    }),
  );
});
