import { freshFolder, runClient, type Contender, type Figure } from '../kit/bench.js';

/** How the agent's own cost grows: with what is on its way, and with what waits on disk. */
export const growth: Figure = {
  about: 'what more on its way brings, and what more on disk costs',
  rounds: 3,
  contenders: Object.fromEntries([
    ...[1, 10, 100, 1_000].map((window) => [`window ${window}`, sendWith(window)]),
    ...[1_000, 100_000, 1_000_000].map((count) => [`waiting ${count}`, holdWith(count)]),
  ]),
  rows: [
    ...[1, 10, 100, 1_000].map((window) => ({
      ...{ label: `1 KiB, ${window} in flight`, ours: `window ${window}`, value: 'perSecond', unit: '/s' },
    })),
    ...[1_000, 100_000, 1_000_000].flatMap((count) => [
      {
        label: `${count.toLocaleString('en-US')} messages on disk: resident`,
        ...{ ours: `waiting ${count}`, value: 'residentMiB', unit: 'MiB' },
      },
      {
        ...{ label: '… heap and buffers', ours: `waiting ${count}`, value: 'heapMiB', unit: 'MiB' },
      },
    ]),
  ],
};

function sendWith(window: number): Contender {
  const count = window === 1 ? 10_000 : 80_000;
  const work = { kind: 'send', bytes: 1024, window, count, warm: count / 5 };
  return (bench) => runClient(bench, 'agent', work);
}

function holdWith(count: number): Contender {
  return async (bench) => {
    const directory = await freshFolder(bench);
    await runClient(bench, 'agent', { kind: 'fill', directory, bytes: 100, count });
    return runClient(bench, 'agent', { kind: 'hold', directory });
  };
}
