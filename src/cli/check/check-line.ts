import { styleText } from 'node:util';

import type { AgentError } from '../../errors.js';
import { redact } from '../../secret.js';
import { visible } from '../../visible.js';
import type { Facts } from './checks.js';
import { jsonOnOneLine } from '../json-text.js';
import type { Printable } from '../output.js';

/** What came of a check. */
export type CheckVerdict =
  | {
      result: 'ok' | 'warn';
      detail: string;
      hint?: string | undefined;
      facts?: Facts | undefined;
      ms: number;
    }
  | { result: 'failed'; error: AgentError; ms: number }
  | { result: 'skipped'; needs?: string; detail?: string; hint?: string | undefined };

/**
 * A line for a check, with the cure below it where there is something to cure:
 *
 *     ok    dns       127.0.0.1
 *     FAIL  tcp       localhost:5671 refused the connection (ECONNREFUSED)
 *                     nothing listens there: check the host and port, and that the hub or emulator runs
 *
 * `{"check":"tcp","result":"failed","code":"unavailable","error":"…","hint":"…","ms":2}`
 */
export function checkLine(name: string, verdict: CheckVerdict, { colors }: { colors: boolean }): Printable {
  return {
    json: () => redact(jsonOnOneLine(JSON.stringify({ check: name, ...fieldsOf(verdict) }))),
    text: ({ columns }) => {
      const word = wordOf[verdict.result];
      const head = `${colors ? styleText(colorOf[verdict.result], word) : word}${' '.repeat(6 - word.length)}${name.padEnd(nameWidth)}  `;
      const room = Math.max(narrowest, (columns ?? Infinity) - indent);
      const lines = textOf(verdict).flatMap((text) => wrapped(visible(redact(text)), room));
      return head + lines.join(`\n${' '.repeat(indent)}`);
    },
  };
}

const nameWidth = 12;
const indent = 6 + nameWidth + 2;
/** On a terminal narrower than this the lines break where they like. */
const narrowest = 30;

const wordOf = { ok: 'ok', warn: 'warn', failed: 'FAIL', skipped: '-' } as const;
const colorOf = { ok: 'green', warn: 'yellow', failed: 'red', skipped: 'gray' } as const;

function fieldsOf(verdict: CheckVerdict): Record<string, unknown> {
  if (verdict.result !== 'failed') return verdict;
  const { code, message, condition, hint } = verdict.error;
  return { result: verdict.result, code, error: message, condition, hint, ms: verdict.ms };
}

function textOf(verdict: CheckVerdict): string[] {
  switch (verdict.result) {
    case 'ok':
    case 'warn':
      return [verdict.detail, ...lines(verdict.hint)];
    case 'failed':
      return [verdict.error.message, ...lines(verdict.error.hint)];
    case 'skipped':
      return [
        verdict.needs === undefined ? (verdict.detail ?? '') : `not tried: it needs ${verdict.needs}`,
        ...lines(verdict.hint),
      ];
  }
}

function lines(text: string | undefined): string[] {
  return text?.split('\n') ?? [];
}

/** Breaks at blanks, so that nothing that matters is cut off; a word that is too long stays whole. */
function wrapped(text: string, width: number): string[] {
  const broken: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      broken.push(line);
      line = word;
    } else line = line === '' ? word : `${line} ${word}`;
  }
  return [...broken, line];
}
