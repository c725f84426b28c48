import { connectionStringAt, type Hub } from '../kit/hub.js';
import type { Bench, Figure, Reading } from '../kit/bench.js';
import { agentOnce, officialOnce, timeOnce } from '../kit/once.js';

/**
 * How often who sends one message waits for the hub, on TLS 1.2 with `$cbs`: the time that it takes longer over a long
 * way, by the length of the way. The relay does not delay the TCP handshake, which is one more.
 */
export const roundtrips: Figure = {
  about: 'how often a process that sends one message waits for the hub',
  contenders: {
    agent: (bench) => tripsOf(bench, agentOnce),
    'agent, attach with token': (bench) => tripsOf(bench, withToken),
    official: (bench) => tripsOf(bench, officialOnce),
  },
  rows: [
    {
      label: 'round trips of `send --data`, TLS 1.2, `$cbs` (floor 8, aim 7; official 10)',
      ...{ ours: 'agent', theirs: 'official', value: 'roundTrips', unit: '', floor: 0.8, aim: 0.7 },
    },
    {
      label: '… with `--attach with-token`',
      ...{ ours: 'agent, attach with token', theirs: 'official', value: 'roundTrips', unit: '' },
    },
  ],
};

const withToken = {
  ...agentOnce,
  args: (hub: Hub) => [...agentOnce.args(hub), '--attach', 'with-token'],
};

const nearMs = 10;
const farMs = 110;

async function tripsOf(bench: Bench, once: typeof agentOnce): Promise<Reading> {
  const { hub12 } = bench;
  // The shortest of several: what else the machine does can only make it longer.
  const over = async (roundTripMs: number) => {
    const connectionString = connectionStringAt(hub12, await bench.relay(hub12, roundTripMs));
    let shortest = Infinity;
    for (let n = 0; n < 5; n++) shortest = Math.min(shortest, await timeOnce(once, hub12, connectionString));
    return shortest;
  };
  const near = await over(nearMs);
  return { roundTrips: ((await over(farMs)) - near) / (farMs - nearMs) + 1 };
}
