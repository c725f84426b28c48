import type { Figure, Reading } from '../kit/bench.js';
import { agentOnce, officialOnce, timeOnce } from '../kit/once.js';
import { median } from '../kit/table.js';

/** From the start of the process to its end, which is when the hub has accepted its message. */
export const cold: Figure = {
  about: 'a process that sends one message',
  rounds: 7,
  contenders: {
    agent: ({ hub }) => several(() => timeOnce(agentOnce, hub)),
    official: ({ hub }) => several(() => timeOnce(officialOnce, hub)),
    'node that does nothing': ({ hub }) => several(() => timeOnce(nothing, hub)),
  },
  rows: [
    {
      label: 'cold start of `send --data` to its end',
      ...{ ours: 'agent', theirs: 'official', value: 'ms', unit: 'ms', floor: 0.4, aim: 0.25 },
    },
    { label: '… node that does nothing', ours: 'node that does nothing', value: 'ms', unit: 'ms' },
  ],
};

const nothing = { program: process.execPath, args: () => ['-e', ''] };

async function several(once: () => Promise<number>): Promise<Reading> {
  const times = [await once(), await once(), await once()];
  return { ms: median(times) };
}
