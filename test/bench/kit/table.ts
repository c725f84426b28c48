import type { Figure, Reading, Row } from './bench.js';

/** Readings by contender, one for each round. */
export type Results = Record<string, Reading[]>;

export interface TableRow {
  figure: string;
  label: string;
  unit: string;
  ours: number;
  theirs: number | undefined;
  ratio: number | undefined;
  floor: number | undefined;
  aim: number | undefined;
  /** What of floor and aim is reached; `void` where what was measured cannot be. */
  verdict: 'aim' | 'floor' | 'missed' | 'stated' | 'void';
}

/** The median of what all rounds measured, and the ratio of the medians. */
export function rowsOf(figure: string, { rows }: Figure, results: Results): TableRow[] {
  return rows.map((row) => {
    const ours = medianOf(results, row.ours, row.value);
    const theirs = row.theirs === undefined ? undefined : medianOf(results, row.theirs, row.value);
    const ratio = theirs === undefined ? undefined : ours / theirs;
    const { label, unit, floor, aim } = row;
    return { figure, label, unit, ours, theirs, ratio, floor, aim, verdict: verdictOf(row, ratio) };
  });
}

export function markdown(rows: readonly TableRow[]): string {
  const head = '| figure | agent | official | ratio | floor | aim | |\n|---|---|---|---|---|---|---|';
  const lines = rows.map(({ label, unit, ours, theirs, ratio, floor, aim, verdict }) => {
    const cells = [
      label,
      `${short(ours)} ${unit}`,
      theirs === undefined ? '' : `${short(theirs)} ${unit}`,
      ratio === undefined ? '' : ratio.toFixed(2),
      floor === undefined ? '' : String(floor),
      aim === undefined ? '' : String(aim),
      verdict,
    ];
    return `| ${cells.join(' | ')} |`;
  });
  return [head, ...lines].join('\n');
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return ((sorted[Math.floor(middle)] ?? NaN) + (sorted[Math.ceil(middle)] ?? NaN)) / 2;
}

function medianOf(results: Results, contender: string, value: string): number {
  return median((results[contender] ?? []).map((reading) => reading[value] ?? NaN));
}

function verdictOf({ floor, aim }: Row, ratio: number | undefined): TableRow['verdict'] {
  if (ratio !== undefined && !(ratio > 0 && ratio < Infinity)) return 'void';
  if (ratio === undefined || floor === undefined || aim === undefined) return 'stated';
  const reaches = (bound: number) => (floor < aim ? ratio >= bound : ratio <= bound);
  if (reaches(aim)) return 'aim';
  return reaches(floor) ? 'floor' : 'missed';
}

function short(value: number): string {
  if (value >= 1000) return Math.round(value).toLocaleString('en-US');
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
