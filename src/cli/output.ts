import { Option } from 'commander';

import { visible } from '../visible.js';
import type { Subcommand } from './help.js';
import type { Io } from './io.js';
import { type Side, variable } from './variables.js';

export const outputFormats = ['auto', 'text', 'json', 'none'] as const;

/** What `addOutputOptions` leaves in a command's flags. */
export interface OutputFlags {
  output: (typeof outputFormats)[number];
  utc?: boolean;
}

/** Options for what is printed on standard output. */
export function addOutputOptions(command: Subcommand, side: Side): Subcommand {
  const group = (option: Option): Option => option.helpGroup('Output:');
  return command
    .addOption(
      group(
        new Option('-o, --output <format>', 'auto is text on a terminal, JSON lines otherwise')
          .choices(outputFormats)
          .default('auto')
          .env(variable(side, 'OUTPUT')),
      ),
    )
    .addOption(group(new Option('--utc', 'times in UTC; in JSON they always are')))
    .addOption(group(new Option('--no-color', 'no colours ($NO_COLOR)')));
}

/** One thing to print, in the two ways there are. Only the one that is asked for is made. */
export interface Printable {
  /** One line of JSON, without its end. */
  json: () => string;
  /** One line for people, without its end. */
  text: (look: TextLook) => string;
}

/** What a line for people depends on. */
export interface TextLook {
  /** Width to cut to; undefined when the line goes into a file. */
  columns: number | undefined;
  /** A time as the person wants to read it. */
  time: (ms: number) => string;
}

export interface Printer {
  readonly format: 'text' | 'json' | 'none';
  /** Resolves when standard output has room for more. */
  print(what: Printable, end?: string): Promise<void>;
  /** As `print` for each, in one write. */
  printAll(lines: readonly Printable[]): Promise<void>;
}

/** Prints results on standard output in the format that was asked for. */
export function createPrinter(io: Io, flags: OutputFlags): Printer {
  const { stdout } = io;
  const automatic = stdout.isTTY ? 'text' : 'json';
  const format = flags.output === 'auto' ? automatic : flags.output;
  const time = (ms: number): string => humanTime(ms, flags.utc === true);
  const lineOf = ({ json, text }: Printable): string =>
    format === 'json' ? json() : text({ columns: stdout.columns, time });
  return {
    format,
    async print(what, end = '\n') {
      if (format !== 'none') await stdout.write(lineOf(what) + end);
    },
    async printAll(lines) {
      if (format !== 'none') await stdout.write(lines.map((line) => `${lineOf(line)}\n`).join(''));
    },
  };
}

/** `2026-11-20 06:00:00.123`, in the zone of this machine or with a Z. */
export function humanTime(ms: number, utc: boolean): string {
  // A peer may name a time that no calendar has.
  if (!(Math.abs(ms) < 8.6e15)) return String(ms);
  const zone = utc ? 0 : new Date(ms).getTimezoneOffset() * 60_000;
  const text = new Date(ms - zone).toISOString().replace('T', ' ');
  return utc ? text : text.slice(0, -1);
}

/** Cells side by side, the last one cut so that the line fits. */
export function columns(
  cells: readonly string[],
  widths: readonly number[],
  limit: number | undefined,
): string {
  const last = cells.length - 1;
  const line = cells
    .map((cell, at) => (at === last ? cell : cell.padEnd(widths[at] ?? 0)))
    .join('  ')
    .trimEnd();
  const characters = Array.from(line);
  if (limit === undefined || characters.length <= limit) return line;
  return `${characters.slice(0, limit - 1).join('')}…`;
}

/** Names and what stands behind them, a line each. */
export function table(rows: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${visible(value)}`).join('\n');
}
