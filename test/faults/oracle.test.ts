/** The oracle must see what it is there for: each kind of harm, made by hand. */
import { describe, expect, test } from 'vitest';

import { HubRecord, type RecordedEvent } from '../../src/emulator/record.js';
import { judgeCommands, judgeTelemetry, type Run } from './oracle.js';

const deviceId = 'dev-01';

function recordOf(events: readonly RecordedEvent[]): HubRecord {
  const record = new HubRecord(() => 0, { entries: 1_000, bytes: 1_000_000 });
  for (const event of events) record.add(event);
  return record;
}

const attached = (connection: number): RecordedEvent => ({
  event: 'attached',
  connection,
  session: 2,
  link: 'telemetry',
  direction: 'out',
  deviceId,
  name: 'telemetry link',
  address: '',
});

const message = (
  connection: number,
  messageId: string,
  outcome: 'accepted' | 'released' | 'none' = 'accepted',
): RecordedEvent => ({
  event: 'telemetry',
  connection,
  deviceId,
  messageId,
  properties: {},
  annotations: {},
  body: Buffer.alloc(0),
  outcome: { outcome },
});

const acknowledged = ['m1', 'm2', 'm3'];
const judge = (events: readonly RecordedEvent[], window = 2) =>
  judgeTelemetry(recordOf(events), { deviceId, acknowledged, window });
const clean = { lost: [], duplicates: 0, unexplained: [], reordered: [], farBehind: [], lostLinks: 0 };

describe('of telemetry it says', () => {
  test('nothing, when each message came once and in order', () => {
    expect(judge([attached(1), message(1, 'm1'), message(1, 'm2'), message(1, 'm3')])).toEqual(clean);
  });

  test('what is lost: never there, given back, or not answered', () => {
    const events = [attached(1), message(1, 'm1'), message(1, 'm2', 'released'), message(1, 'm3', 'none')];
    expect(judge(events).lost).toEqual(['m2', 'm3']);
  });

  test('what came twice over one link, which nothing explains', () => {
    const events = [attached(1), ...['m1', 'm2', 'm3', 'm3'].map((id) => message(1, id))];
    expect(judge(events)).toEqual({ ...clean, duplicates: 1, unexplained: ['m3'] });
  });

  test('what came again after its link was lost, within the window and beyond it', () => {
    const events = [
      attached(1),
      ...acknowledged.map((id) => message(1, id)),
      attached(1),
      ...acknowledged.map((id) => message(1, id)),
    ];
    expect(judge(events, 3)).toEqual({ ...clean, duplicates: 3, lostLinks: 1 });
    expect(judge(events, 2)).toEqual({ ...clean, duplicates: 3, unexplained: ['m3'], lostLinks: 1 });
  });

  test('what came after a later one', () => {
    const events = [attached(1), message(1, 'm3'), message(1, 'm1'), message(1, 'm2')];
    expect(judge(events)).toEqual({ ...clean, reordered: ['m1', 'm2'] });
    expect(judge(events, 1).farBehind).toEqual(['m1']);
  });
});

describe('of commands it says', () => {
  const told = (messageId: string, outcome: 'accepted' | 'rejected' | 'released', lockLost = false) =>
    ({
      event: 'outcome',
      connection: 1,
      deviceId,
      messageId,
      lockToken: '',
      lockLost,
      outcome: { outcome },
    }) as const;
  const run = (startedAt: number, endedAt?: number, decided: Run['decided'] = 'accept'): Run =>
    endedAt === undefined ? { messageId: 'c1', startedAt } : { messageId: 'c1', startedAt, endedAt, decided };
  const judged = (events: readonly RecordedEvent[], runs: readonly Run[], crashes: readonly number[] = []) =>
    judgeCommands(recordOf(events), { sent: ['c1'], runs, crashes });
  const good = { unfinished: [], rerun: [], unknown: 0, givenUp: 0, misreported: [], neverRan: [] };

  test('nothing, when it ran once, or once more because its handler asked for that', () => {
    expect(judged([told('c1', 'accepted')], [run(0, 1)])).toEqual(good);
    const again = [run(0, 1, 'release'), run(5, 6)];
    expect(judged([told('c1', 'released'), told('c1', 'accepted')], again)).toEqual(good);
  });

  test('that it has no outcome, or only one that came too late', () => {
    expect(judged([told('c1', 'accepted', true)], [run(0, 1)]).unfinished).toEqual(['c1']);
  });

  test('that it ran again without a crash that explains it', () => {
    const twice = [run(0, 1), run(2_000, 2_001)];
    expect(judged([told('c1', 'accepted')], twice).rerun).toEqual(['c1']);
    expect(judged([told('c1', 'accepted')], twice, [1_500]).rerun).toEqual(['c1']);
    expect(judged([told('c1', 'accepted')], twice, [5_000]).rerun).toEqual(['c1']);
    expect(judged([told('c1', 'accepted')], twice, [1])).toEqual({ ...good, unknown: 1 });
    expect(judged([told('c1', 'accepted')], [run(0), run(2_000, 2_001)], [1_500])).toEqual({
      ...good,
      unknown: 1,
    });
  });

  test('that it was given up because the agent died each time it ran, and nothing else of it', () => {
    const description = 'failed 3 times: the agent ended while its handler ran';
    const givenUp = { ...told('c1', 'rejected'), outcome: { outcome: 'rejected', description } } as const;
    const runs = [run(0), run(2_000), run(4_000)];
    expect(judged([givenUp], runs, [1_000, 3_000])).toEqual({ ...good, unknown: 2, givenUp: 1 });
    expect(judged([givenUp], runs, [1_000]).rerun).toEqual(['c1']);
    expect(judged([givenUp], [])).toEqual({ ...good, givenUp: 1 });
  });

  test('that the hub was told something else', () => {
    expect(judged([told('c1', 'accepted')], [run(0, 1, 'reject')]).misreported).toEqual(['c1']);
    expect(judged([told('c1', 'accepted')], []).neverRan).toEqual(['c1']);
  });
});
