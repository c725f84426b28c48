import { runClient, type Figure } from '../kit/bench.js';
import { send } from './send.js';

/** From `send` to the accepted outcome, while 100 are on their way. */
export const latency: Figure = {
  about: 'how long a message takes to be accepted, 100 on their way',
  contenders: {
    ...send.contenders,
    'agent alone': (bench) => runClient(bench, 'agent', alone),
    'official alone': (bench) => runClient(bench, 'official', alone),
  },
  rows: [
    ...[100, 1024].map((bytes) => ({
      label: `p99 to accepted, window 100, ${bytes} B`,
      ...{ ours: `agent ${bytes}`, theirs: `official ${bytes}`, value: 'p99Ms', unit: 'ms' },
      ...{ floor: 0.5, aim: 0.33 },
    })),
    {
      label: '… one at a time, 1 KiB',
      ours: 'agent alone',
      theirs: 'official alone',
      value: 'p99Ms',
      unit: 'ms',
    },
  ],
};

const alone = { kind: 'send', bytes: 1024, window: 1, count: 10_000, warm: 2_000 };
