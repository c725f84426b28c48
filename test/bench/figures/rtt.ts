import { overRelay, runClient, type Figure } from '../kit/bench.js';
import { drainBacklog } from './drain.js';

/** What can be on its way decides, and what a transfer carries. */
export const rtt: Figure = {
  about: 'the same over a round trip of 50 ms',
  contenders: {
    agent: async (bench) =>
      drainBacklog(
        bench,
        { bytes: 1024, count: 200_000, warm: 20_000 },
        await overRelay(bench, bench.hub, roundTripMs),
      ),
    official: async (bench) =>
      runClient(bench, 'official', {
        ...{ kind: 'send', bytes: 1024, window: 1_000, count: 30_000, warm: 5_000 },
        connectionString: await overRelay(bench, bench.hub, roundTripMs),
      }),
  },
  rows: [
    {
      label: 'backlog over 50 ms, 1 KiB: rate (official: 1 000 in flight)',
      ...{ ours: 'agent', theirs: 'official', value: 'perSecond', unit: '/s', floor: 4, aim: 8 },
    },
  ],
};

const roundTripMs = 50;
