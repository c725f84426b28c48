import { runClient, type Figure } from '../kit/bench.js';

/** `iothub-device send --ndjson`, and `sendEvent`: each message in a transfer of its own, 100 on their way. */
export const send: Figure = {
  about: 'telemetry, one message a transfer, 100 on their way',
  contenders: Object.fromEntries(
    [100, 1024].flatMap((bytes) => {
      // V8 compiles in threads of its own for the first half second, beside the hub's: `count` is to be past that.
      const work = { kind: 'send', bytes, window: 100, count: 100_000, warm: 100_000 };
      return (['agent', 'official'] as const).map((name) => [
        `${name} ${bytes}`,
        (bench) => runClient(bench, name, work),
      ]);
    }),
  ),
  rows: [
    ...[100, 1024].map((bytes) => ({
      label: `singles, window 100, ${bytes} B: rate`,
      ...{ ours: `agent ${bytes}`, theirs: `official ${bytes}`, value: 'perSecond', unit: '/s' },
      ...{ floor: 2.5, aim: 3.5 },
    })),
    ...[100, 1024].map((bytes) => ({
      label: `… ${bytes} B: CPU for 100 000`,
      ...{ ours: `agent ${bytes}`, theirs: `official ${bytes}`, value: 'cpuPer100k', unit: 's' },
      ...{ floor: 0.4, aim: 0.28 },
    })),
  ],
};
