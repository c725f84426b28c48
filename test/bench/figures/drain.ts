import { freshFolder, runClient, scaled, type Bench, type Figure, type Reading } from '../kit/bench.js';

/** What waits on disk is sent in batches and removed; the SDK sends from memory, each message on its own. */
export const drain: Figure = {
  about: 'a backlog on disk, sent in batches',
  contenders: {
    'agent 1024': (bench) => drainBacklog(bench, { bytes: 1024, count: 300_000, warm: 100_000 }),
    'official 1024': (bench) => runClient(bench, 'official', { ...official, bytes: 1024 }),
    'agent 100': (bench) => drainBacklog(bench, { bytes: 100, count: 400_000, warm: 100_000 }),
    'official 100': (bench) => runClient(bench, 'official', { ...official, bytes: 100 }),
  },
  rows: [
    {
      label: 'backlog drained, 1 KiB: rate',
      ...{ ours: 'agent 1024', theirs: 'official 1024', value: 'perSecond', unit: '/s', floor: 6, aim: 10 },
    },
    {
      label: '… 100 B: rate',
      ...{ ours: 'agent 100', theirs: 'official 100', value: 'perSecond', unit: '/s', floor: 8, aim: 15 },
    },
    {
      label: '… 1 KiB: CPU for 100 000',
      ...{ ours: 'agent 1024', theirs: 'official 1024', value: 'cpuPer100k', unit: 's' },
    },
    {
      label: '… 100 B: CPU for 100 000',
      ...{ ours: 'agent 100', theirs: 'official 100', value: 'cpuPer100k', unit: 's' },
    },
  ],
};

// As in `send`: past what V8 compiles beside the hub.
const official = { kind: 'send', window: 100, count: 100_000, warm: 100_000 };

export interface Backlog {
  bytes: number;
  count: number;
  /** So many more come first, and are not measured. */
  warm: number;
}

export async function drainBacklog(
  bench: Bench,
  { bytes, count, warm }: Backlog,
  connectionString = bench.hub.connectionString,
): Promise<Reading> {
  const directory = await freshFolder(bench);
  const { count: measured = 0, warm: before = 0 } = scaled(bench, { count, warm });
  await runClient(bench, 'agent', { kind: 'fill', directory, bytes, count: measured + before });
  const reading = await runClient(bench, 'agent', {
    ...{ kind: 'drain', connectionString, directory, count, warm },
  });
  if (reading['left'] !== 0) throw new Error(`${String(reading['left'])} messages are left in the spool`);
  return reading;
}
