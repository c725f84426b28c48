import { styleText } from 'node:util';

import type { LogLevel } from '../log.js';
import { redact } from '../secret.js';
import { visible } from '../visible.js';

/** How lines look. */
export interface LogLook {
  format: 'text' | 'json';
  /**
   * For journald, which reads `<4>` at the start of a line as the priority (sd-daemon(3), `SyslogLevelPrefix=`) and
   * stamps each line itself.
   */
  journal: boolean;
  /** For a person at a terminal: short times and colours. */
  terminal: boolean;
  colors: boolean;
  /** Times for a terminal in UTC instead of its zone. */
  utc: boolean;
}

/** One log record. Names and values are plain: an error among the fields has become text before. */
export interface LogRecord {
  /** Milliseconds since the epoch. */
  time: number;
  level: LogLevel;
  msg: string;
  fields: Record<string, unknown>;
}

/** journald takes 48 KiB by default; a line that long is no line. */
const longestLine = 8 * 1024;

/**
 * A record as one line with its end. Whatever is in it, the line stays one line, drives no terminal, holds no secret
 * and has an end.
 */
export function formatRecord(record: LogRecord, look: LogLook): string {
  const line = redact(look.format === 'json' ? jsonLine(record) : textLine(record, look));
  return `${look.journal ? `<${String(priorities[record.level])}>` : ''}${line}\n`;
}

/** syslog(3) */
const priorities: Record<LogLevel, number> = { error: 3, warn: 4, info: 6, debug: 7, trace: 7 };

function jsonLine({ time, level, msg, fields }: LogRecord): string {
  const head = { time: isoTime(time), level, msg };
  const line = json({ ...head, ...renamed(fields) });
  if (line.length <= longestLine) return line;
  return json({ ...head, msg: cut(msg, longestLine / 8), cut: line.length });
}

/** A field must not pass itself off as the time, the level or the text of the record. */
function renamed(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      /^(time|level|msg|cut)_*$/.test(name) ? `${name}_` : name,
      value,
    ]),
  );
}

/** JSON itself leaves C1 and bidi characters alone; inside a string they can be escaped without a change of meaning. */
function json(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function textLine({ time, level, msg, fields }: LogRecord, look: LogLook): string {
  const pairs = Object.entries(fields).map(([name, value]) => `${visible(name)}=${fieldText(value)}`);
  const line = cut([visible(msg), ...pairs].join(' '), longestLine);
  if (look.journal) return line;
  const stamp = look.terminal ? clockTime(time, look.utc) : isoTime(time);
  const head = `${stamp} ${level.padEnd(5)}`;
  return `${look.colors ? styleText(colors[level], head) : head} ${line}`;
}

const colors: Record<LogLevel, 'red' | 'yellow' | 'green' | 'gray'> = {
  error: 'red',
  warn: 'yellow',
  info: 'green',
  debug: 'gray',
  trace: 'gray',
};

function fieldText(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  const quoted = text === '' || /[\s"=]/.test(text) ? JSON.stringify(text) : text;
  return visible(typeof value === 'string' ? quoted : text);
}

function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length)}… (${String(text.length - length)} more)`;
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

function clockTime(ms: number, utc: boolean): string {
  if (utc) return isoTime(ms).slice(11);
  const date = new Date(ms);
  const two = (part: number): string => String(part).padStart(2, '0');
  const seconds = `${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, '0')}`;
  return `${two(date.getHours())}:${two(date.getMinutes())}:${seconds}`;
}
