import { freshFolder, runClient, type Contender, type Figure } from '../kit/bench.js';

/**
 * A handler that is a module accepts every command. The agent records of each one that it has begun and what came of
 * it, both synced, and that the hub knows, which goes along with what is next; the SDK keeps nothing. The SDK always
 * has up to 1 000 in hand; what the agent has is for its user to say.
 */
export const commands: Figure = {
  about: 'commands received and accepted by a module',
  needsSink: true,
  contenders: {
    'agent 1000': agentWith(1_000),
    official: (bench) => runClient(bench, 'official', work),
    'agent 4': agentWith(4, { count: 10_000, warm: 2_000 }),
  },
  rows: [
    {
      label: 'commands, 256 B, 1 000 in hand: rate',
      ...{ ours: 'agent 1000', theirs: 'official', value: 'perSecond', unit: '/s', floor: 3, aim: 6 },
    },
    {
      label: '… CPU for 100 000',
      ...{ ours: 'agent 1000', theirs: 'official', value: 'cpuPer100k', unit: 's', floor: 0.85, aim: 0.7 },
    },
    { label: '… 4 in hand, the default: rate', ours: 'agent 4', value: 'perSecond', unit: '/s' },
  ],
};

// V8 compiles in threads of its own for the first second, beside the hub's: `count` is to be past that.
const work = { kind: 'commands', count: 200_000, warm: 100_000 };

function agentWith(concurrency: number, size: Partial<typeof work> = {}): Contender {
  return async (bench) =>
    runClient(bench, 'agent', { ...work, ...size, concurrency, directory: await freshFolder(bench) });
}
