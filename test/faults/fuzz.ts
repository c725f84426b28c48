/**
 * Fuzzes the guard: damaged conversations from seeds, in child processes that may die of them.
 *
 *     npm run fuzz -- [--frames N] [--seed S] [--bare]
 *
 * Until N damaged frames (default 1 000 000) were heard. Prints what happened, and exits with 1 when a process ended,
 * a frame took more than 200 ms, memory grew by more than 32 MiB, or anything got through that rhea fails over. `--bare`
 * plays the same seeds to rhea alone.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import type { Played } from './fuzz-child.js';

export interface FuzzOptions {
  /** Damaged frames to be heard, in one batch at least. */
  frames: number;
  /** The first seed; each conversation takes the next. */
  seed: number;
  bare?: boolean;
  /** Conversations in one process. */
  batch?: number;
  /** Processes at a time. */
  parallel?: number;
  /** `none` plays whole conversations. */
  damage?: 'frames' | 'none';
  onBatch?: (findings: Findings) => void;
}

export interface Findings extends Played {
  /** Processes that ended, with the seed that did it. */
  exits: { seed: number; how: string }[];
  /** Conversations that took more than `patienceMs`: their processes were killed. */
  hangs: number[];
}

const patienceMs = 5_000;
/** How long a process may take to begin, on a busy machine. */
const startMs = 30_000;
/** Four times less than node would take by itself, so that a bomb goes off soon. */
const heapMiB = 256;
const usualBatch = 5_000;

export async function fuzz({
  frames,
  seed,
  bare = false,
  batch = usualBatch,
  parallel = 2,
  damage = 'frames',
  onBatch,
}: FuzzOptions): Promise<Findings> {
  const findings: Findings = {
    conversations: 0,
    damagedFrames: 0,
    messages: 0,
    readable: 0,
    beside: 0,
    unreadable: 0,
    settled: 0,
    violations: 0,
    surprises: {},
    longestStallMs: 0,
    longestStallSeed: -1,
    grownHeapMiB: 0,
    grownPeakMiB: 0,
    exits: [],
    hangs: [],
  };
  let next = seed;
  let batches = 0;
  const worker = async () => {
    do {
      const first = next;
      next += batch;
      // One batch in four keeps all other frames whole, so that all its messages are heard.
      const bodiesOnly = damage === 'frames' && batches++ % 4 === 3;
      await playBatch({ first, end: next, damage: bodiesOnly ? 'bodies' : damage, bare }, findings);
      onBatch?.(findings);
    } while (findings.damagedFrames < frames);
  };
  await Promise.all(Array.from({ length: parallel }, worker));
  return findings;
}

/** Whether the findings are as they should be. */
export function isClean(findings: Findings): boolean {
  const { exits, hangs, surprises, longestStallMs, grownHeapMiB, grownPeakMiB } = findings;
  const quiet = exits.length === 0 && hangs.length === 0 && Object.keys(surprises).length === 0;
  return quiet && longestStallMs <= 200 && grownHeapMiB <= 32 && grownPeakMiB <= 32;
}

interface Batch {
  first: number;
  end: number;
  damage: 'frames' | 'bodies' | 'none';
  bare: boolean;
}

/** Plays a batch in as many processes as it takes: where one ends, another goes on behind the seed. */
async function playBatch({ first, end, damage, bare }: Batch, findings: Findings): Promise<void> {
  for (let seed = first; seed < end;) {
    const result = await playProcess([String(seed), String(end - seed), damage, bare ? 'bare' : 'guarded']);
    if (result.played !== undefined) add(findings, result.played);
    if (result.how === 'done') return;
    if (result.how === 'hung') findings.hangs.push(result.seed);
    else findings.exits.push({ seed: result.seed, how: result.how });
    seed = result.seed + 1;
  }
}

interface ProcessResult {
  /** What it said last of itself. */
  played: Played | undefined;
  /** The last conversation that it began. */
  seed: number;
  /** `done`, `hung`, or how it ended. */
  how: string;
}

async function playProcess(args: string[]): Promise<ProcessResult> {
  const loader = new URL('../typescript.js', import.meta.url).href;
  const script = fileURLToPath(new URL('fuzz-child.ts', import.meta.url));
  const flags = [`--max-old-space-size=${heapMiB}`, '--expose-gc', '--import', loader];
  const child = spawn(process.execPath, [...flags, script, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const complaint = text(child.stderr);
  const exited = once(child, 'exit');
  let hung: NodeJS.Timeout | undefined;
  const allow = (ms: number) => {
    clearTimeout(hung);
    hung = setTimeout(() => child.kill('SIGKILL'), ms);
  };
  allow(startMs);
  let seed = Number(args[0]);
  let played: Played | undefined;
  for await (const line of createInterface(child.stdout)) {
    if (line.startsWith('{')) played = JSON.parse(line) as Played;
    else seed = Number(line);
    allow(patienceMs);
  }
  clearTimeout(hung);
  const [code, signal] = (await exited) as [number | null, string | null];
  if (code === 0) return { played, seed, how: 'done' };
  if (signal === 'SIGKILL') return { played, seed, how: 'hung' };
  const [why = ''] = /.*(?:Error|out of memory).*/.exec(await complaint) ?? [];
  return { played, seed, how: `exit ${code ?? signal ?? ''}: ${why}` };
}

function add(findings: Findings, played: Played): void {
  for (const key of [
    'conversations',
    'damagedFrames',
    'messages',
    'readable',
    'beside',
    'unreadable',
    'settled',
    'violations',
  ] as const) {
    findings[key] += played[key];
  }
  if (played.longestStallMs > findings.longestStallMs) {
    findings.longestStallMs = played.longestStallMs;
    findings.longestStallSeed = played.longestStallSeed;
  }
  findings.grownHeapMiB = Math.max(findings.grownHeapMiB, played.grownHeapMiB);
  findings.grownPeakMiB = Math.max(findings.grownPeakMiB, played.grownPeakMiB);
  for (const [what, { count, seed }] of Object.entries(played.surprises)) {
    const known = (findings.surprises[what] ??= { count: 0, seed });
    known.count += count;
  }
}

function report(findings: Findings): string {
  const { exits, hangs, surprises } = findings;
  return [
    `damaged frames heard   ${findings.damagedFrames}`,
    `conversations          ${findings.conversations}, of which the guard ended ${findings.violations}`,
    `messages               ${findings.readable} read, ${findings.beside} beside rhea, ${findings.unreadable} unreadable`,
    `outcomes               ${findings.settled} told`,
    `processes ended        ${exits.length}${exits
      .slice(0, 5)
      .map(({ seed, how }) => ` (seed ${seed}: ${how})`)
      .join('')}`,
    `hangs                  ${hangs.length}${hangs.length > 0 ? ` (seeds ${hangs.slice(0, 5).join(', ')})` : ''}`,
    `longest for a piece    ${findings.longestStallMs.toFixed(1)} ms of CPU (seed ${findings.longestStallSeed})`,
    `memory, per process    heap +${findings.grownHeapMiB.toFixed(1)} MiB, peak of resident +${findings.grownPeakMiB.toFixed(1)} MiB`,
    `surprises, by kind     ${Object.keys(surprises).length}`,
    ...Object.entries(surprises)
      .sort(([, a], [, b]) => b.count - a.count)
      .slice(0, 12)
      .map(([what, { count, seed }]) => `  ${count} x ${what} (seed ${seed})`),
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: {
      frames: { type: 'string', default: '1000000' },
      seed: { type: 'string' },
      bare: { type: 'boolean', default: false },
    },
  });
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
  process.stdout.write(`seed ${seed}${values.bare ? ', rhea alone' : ''}\n`);
  const findings = await fuzz({
    frames: Number(values.frames),
    seed,
    bare: values.bare,
    ...(values.bare && { batch: 100 }),
    onBatch: ({ damagedFrames }) => process.stderr.write(`\r${damagedFrames} `),
  });
  process.stderr.write('\r');
  process.stdout.write(`${report(findings)}\n`);
  process.exitCode = isClean(findings) ? 0 : 1;
}
