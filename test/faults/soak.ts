/**
 * The long form of the fault tests.
 *
 *     npm run soak -- [--runs N] [--messages N] [--commands N] [--seed S] [--parallel P] [--real-time]
 *                     [--transport amqp-ws]
 *     npm run soak -- --kills N [--seed S]
 *     npm run soak -- --outage AGENTS
 *     npm run soak -- --renewals DEVICES
 *
 * The first is N seeded runs (default 1 000, of 1 000 messages and 30 commands each), P at a time (default 6): see
 * `mixer.ts`. `--kills` kills an installed agent N times (`kill.ts`), `--outage` is ten minutes without a hub,
 * `--renewals` ten tokens of 20 s for each device on a link without credit (`fleet.ts`). In the first, all times are
 * divided by 20; `--real-time` leaves them as they are. Prints what was counted, and each run that went wrong with its
 * seed; exits with 1 when anything was lost, repeated beyond what lost links explain, done twice, or left.
 */
import { parseArgs } from 'node:util';

import { outage, renewals } from './fleet.js';
import { killAgain } from './kill.js';
import { describeMix, isGood, mix, type Mixed } from './mixer.js';
import type { Transport } from './transport.js';

const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function soak(): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '1000' },
      messages: { type: 'string', default: '1000' },
      commands: { type: 'string', default: '30' },
      seed: { type: 'string', default: '1' },
      parallel: { type: 'string', default: '6' },
      'real-time': { type: 'boolean', default: false },
      transport: { type: 'string', default: 'amqp' },
      kills: { type: 'string' },
      outage: { type: 'string' },
      renewals: { type: 'string' },
    },
  });
  const seed = Number(values.seed);
  const factor = values['real-time'] ? 1 : 20;
  if (values.kills !== undefined) return soakKills(Number(values.kills), seed);
  if (values.outage !== undefined) return soakOutage(Number(values.outage));
  if (values.renewals !== undefined) return soakRenewals(Number(values.renewals));
  return soakMixes({
    runs: Number(values.runs),
    messages: Number(values.messages),
    commands: Number(values.commands),
    parallel: Number(values.parallel),
    factor,
    seed,
    transport: values.transport === 'amqp-ws' ? 'amqp-ws' : 'amqp',
  });
}

interface Mixes {
  runs: number;
  messages: number;
  commands: number;
  parallel: number;
  factor: number;
  seed: number;
  transport: Transport;
}

async function soakMixes({ runs, parallel, seed, ...mixture }: Mixes): Promise<boolean> {
  const count = new Count();
  const warnings = new Set<string>();
  process.on('warning', ({ message }) => warnings.add(message));
  const startedAt = performance.now();
  let next = seed;
  const worker = async (): Promise<void> => {
    for (let mine = next++; mine < seed + runs; mine = next++) {
      const mixed = await mix({ seed: mine, ...mixture });
      count.add(mixed);
      if (!isGood(mixed)) say(`BAD ${describeMix(mixed)}`);
      if (count.runs % 50 === 0) say(`${count.runs} runs, ${count.bad} bad`);
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  say(count.report());
  say(
    `${warnings.size} kinds of warning by Node.js, ${Math.round((performance.now() - startedAt) / 1000)} s`,
  );
  for (const warning of warnings) say(`  ${warning}`);
  return count.bad === 0 && warnings.size === 0;
}

class Count {
  runs = 0;
  bad = 0;
  readonly #sums: Record<string, number> = {};
  readonly #troubles = new Map<string, number>();
  readonly #drained: number[] = [];

  add(mixed: Mixed): void {
    this.runs++;
    if (!isGood(mixed)) this.bad++;
    const { telemetry, commands, acknowledged, connections } = mixed;
    for (const [name, value] of Object.entries({ ...telemetry, ...commands, acknowledged, connections })) {
      this.#sums[name] = (this.#sums[name] ?? 0) + (Array.isArray(value) ? value.length : value);
    }
    for (const { kind } of mixed.troubles) this.#troubles.set(kind, (this.#troubles.get(kind) ?? 0) + 1);
    this.#drained.push(mixed.drainedMs);
  }

  report(): string {
    const troubles = [...this.#troubles.values()].reduce((sum, times) => sum + times, 0);
    return [
      `${this.runs} runs, ${this.bad} bad, ${troubles} troubles of ${this.#troubles.size} kinds`,
      ...Object.entries(this.#sums).map(([name, sum]) => `  ${name} ${sum}`),
      `  after the last trouble everything is there within ${quantiles(this.#drained)} of the agent's time`,
    ].join('\n');
  }
}

async function soakKills(kills: number, seed: number): Promise<boolean> {
  const perRun = 20;
  let isGood = true;
  for (let done = 0; done < kills; done += perRun) {
    const run = { seed: seed + done, kills: Math.min(perRun, kills - done) };
    const { telemetry, commands, wrongReplies, ...counts } = await killAgain(run);
    const { lost, unexplained, duplicates } = telemetry;
    const { unfinished, rerun, misreported, neverRan, unknown, givenUp } = commands;
    const bad = { lost, unexplained, unfinished, rerun, misreported, neverRan, wrongReplies };
    const found = Object.entries(bad).filter(([, ids]) => ids.length > 0);
    if (found.length > 0 || counts.exitCode !== 0) isGood = false;
    say(JSON.stringify({ ...run, ...counts, duplicates, unknown, givenUp, bad: Object.fromEntries(found) }));
  }
  return isGood;
}

async function soakOutage(agents: number): Promise<boolean> {
  const { recoveredMs, ...counts } = await outage({ agents });
  say(JSON.stringify(counts));
  say(`recovered within ${quantiles(recoveredMs)}`);
  return counts.lost === 0;
}

async function soakRenewals(devices: number): Promise<boolean> {
  const result = await renewals({ devices });
  say(JSON.stringify(result));
  return result.drops === 0;
}

function quantiles(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number): string => {
    const index = Math.min(sorted.length - 1, Math.floor(sorted.length * share));
    return `${((sorted[index] ?? 0) / 1000).toFixed(1)} s`;
  };
  return `p50 ${at(0.5)}, p99 ${at(0.99)}, most ${at(1)}`;
}

// Left to itself, Node.js 20 may spin for ever when it tidies up after so many connections that were cut off.
process.exit((await soak()) ? 0 : 1);
