/**
 * The long form of the fault tests.
 *
 *     npm run soak -- [--runs N] [--messages N] [--commands N] [--seed S] [--parallel P] [--real-time]
 *
 * N seeded runs (default 1 000 of 1 000 messages and 30 commands each), P at a time (default 8): see `mixer.ts`.
 * `--real-time`: with the agent's own times instead of a twentieth of them. Prints a line for each run that went
 * wrong, with its seed, and what was counted; exits with 1 when anything was lost, repeated beyond what lost links
 * explain, done twice, or left.
 */
import { parseArgs } from 'node:util';

import { describeMix, isGood, mix, type Mixed } from './mixer.js';

const say = (line: string): void => void process.stdout.write(`${line}\n`);

async function soak(): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '1000' },
      messages: { type: 'string', default: '1000' },
      commands: { type: 'string', default: '30' },
      seed: { type: 'string', default: '1' },
      parallel: { type: 'string', default: '8' },
      'real-time': { type: 'boolean', default: false },
    },
  });
  const [runs, messages, commands, first, parallel] = [
    values.runs,
    values.messages,
    values.commands,
    values.seed,
    values.parallel,
  ].map(Number) as [number, number, number, number, number];
  const factor = values['real-time'] ? 1 : 20;
  const count = new Count();
  const warnings: string[] = [];
  process.on('warning', ({ message }) => warnings.push(message));
  const startedAt = performance.now();
  let next = first;
  const worker = async (): Promise<void> => {
    for (let seed = next++; seed < first + runs; seed = next++) {
      const mixed = await mix({ seed, messages, commands, factor });
      count.add(mixed);
      if (!isGood(mixed)) say(`BAD ${describeMix(mixed)}`);
      if (count.runs % 50 === 0) say(`${count.runs} runs, ${count.bad} bad`);
    }
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  say(count.report());
  say(`${warnings.length} warnings of Node.js, ${Math.round((performance.now() - startedAt) / 1000)} s`);
  for (const warning of new Set(warnings)) say(`  ${warning}`);
  return count.bad === 0;
}

class Count {
  runs = 0;
  bad = 0;
  #sums: Record<string, number> = {};
  #troubles = new Map<string, number>();
  #drained: number[] = [];

  add(mixed: Mixed): void {
    this.runs++;
    if (!isGood(mixed)) this.bad++;
    const { telemetry, commands, acknowledged, connections } = mixed;
    for (const [name, value] of Object.entries({ ...telemetry, ...commands, acknowledged, connections })) {
      this.#sums[name] = (this.#sums[name] ?? 0) + (Array.isArray(value) ? value.length : value);
    }
    for (const trouble of mixed.troubles) {
      const kind = trouble.replace(/ (up|down|both|after|\d|\{|telemetry|commands|cbs|amqp|com\.).*/, '');
      this.#troubles.set(kind, (this.#troubles.get(kind) ?? 0) + 1);
    }
    this.#drained.push(mixed.drainedMs);
  }

  report(): string {
    const troubles = [...this.#troubles.values()].reduce((sum, times) => sum + times, 0);
    const drained = this.#drained.sort((a, b) => a - b);
    const at = (share: number): string =>
      ((drained[Math.floor(drained.length * share)] ?? 0) / 1000).toFixed(1);
    return [
      `${this.runs} runs, ${this.bad} bad, ${troubles} troubles of ${this.#troubles.size} kinds`,
      ...Object.entries(this.#sums).map(([name, sum]) => `  ${name} ${sum}`),
      `  everything there after the last trouble: p50 ${at(0.5)} s, p99 ${at(0.99)} s of the agent's time`,
    ].join('\n');
  }
}

process.exitCode = (await soak()) ? 0 : 1;
