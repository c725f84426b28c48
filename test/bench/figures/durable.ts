import { freshFolder, runClient, type Figure } from '../kit/bench.js';

/** Every message is synced before it is sent, and its removal is after the hub took it; the SDK sends from memory. */
export const durable: Figure = {
  about: 'telemetry through the disk',
  contenders: {
    agent: async (bench) =>
      runClient(bench, 'agent', { ...work, kind: 'durable', directory: await freshFolder(bench) }),
    official: (bench) => runClient(bench, 'official', { ...work, kind: 'send' }),
  },
  rows: [
    {
      label: 'through the disk, 1 KiB, window 1 000: rate',
      ...{ ours: 'agent', theirs: 'official', value: 'perSecond', unit: '/s', floor: 2, aim: 4 },
    },
    {
      label: '… CPU for 100 000',
      ...{ ours: 'agent', theirs: 'official', value: 'cpuPer100k', unit: 's' },
    },
  ],
};

// As in `send`: past what V8 compiles beside the hub.
const work = { bytes: 1024, window: 1_000, count: 100_000, warm: 100_000 };
