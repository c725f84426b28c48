import type { Clock } from '../clock.js';
import type { Ending, Fault, Faults } from './faults.js';

/** Random trouble that a seed repeats: the same seed gives the same faults at the same intervals. */
export interface TroubleOptions {
  /** Any whole number. */
  seed: number;
  /** One fault about this often, in milliseconds; each interval is between half and one and a half of it. */
  everyMs: number;
  clock: Clock;
  signal: AbortSignal;
}

/** Makes trouble until the signal comes; gives what it did, in order. */
export async function makeTrouble(faults: Faults, options: TroubleOptions): Promise<(Fault | Ending)[]> {
  const { everyMs, clock, signal } = options;
  const random = generator(options.seed);
  const done: (Fault | Ending)[] = [];
  for (;;) {
    try {
      await clock.sleep(everyMs * (0.5 + random()), signal);
    } catch (error) {
      if (signal.aborted) return done;
      throw error;
    }
    const trouble = pick(repertoire, random);
    done.push(trouble);
    if ('at' in trouble) faults.add(trouble);
    else faults.now(trouble);
  }
}

/** What a network and a busy hub do to a device. */
const repertoire: readonly (Fault | Ending)[] = [
  { act: 'drop' },
  { act: 'freeze' },
  { act: 'close', condition: 'amqp:connection:forced' },
  { act: 'end', condition: 'amqp:internal-error' },
  { act: 'detach', condition: 'amqp:link:detach-forced' },
  { at: 'connect', do: { act: 'say-nothing' } },
  { at: 'connect', do: { act: 'drop' }, times: 2 },
  { at: 'put-token', do: { act: 'refuse', status: 500 } },
  { at: 'attach', do: { act: 'refuse', condition: 'com.microsoft:timeout' } },
  { at: 'transfer', link: 'telemetry', do: { act: 'say-nothing' } },
  {
    at: 'transfer',
    link: 'telemetry',
    do: { act: 'refuse', condition: 'com.microsoft:device-container-throttled' },
  },
  { at: 'transfer', link: 'telemetry', do: { act: 'delay', ms: 500 } },
  { at: 'disposition', link: 'telemetry', do: { act: 'drop' } },
  { at: 'disposition', link: 'telemetry', do: { act: 'detach' } },
  { at: 'delivery', link: 'commands', do: { act: 'drop' } },
  { at: 'delivery', link: 'commands', do: { act: 'say-nothing' } },
];

function pick<Item>(items: readonly Item[], random: () => number): Item {
  const item = items[Math.floor(random() * items.length)];
  if (item === undefined) throw new RangeError('nothing to pick from');
  return item;
}

/** Numbers in [0, 1) from a seed: mulberry32, which is small and good enough to choose faults by. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
