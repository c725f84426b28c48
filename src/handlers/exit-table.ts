import { formatSeconds } from '../units.js';
import type { Answer } from './handler.js';

/**
 * What a program's end means. The codes are those of sysexits.h, as procmail and postfix read them: 75 is "later",
 * what is unknown is "no", because a loop is worse than a dead letter, and feedback tells the sender.
 */

export type ProgramEnding =
  | { kind: 'exit'; code: number }
  | { kind: 'signal'; signal: string }
  /** It ran past its deadline and was killed. */
  | { kind: 'timeout'; afterMs: number }
  /** The agent stopped while it ran; `how` it then ended. */
  | { kind: 'stopped'; how: { code: number } | { signal: string } }
  /** It was never started. */
  | { kind: 'cannot-start'; why: string };

/** `{"4": "reject", "10-19": "release", "0": 202}`: exit code or range → outcome, or a status for methods and twins. */
export type ExitOverrides = Record<string, Answer['outcome'] | number>;

type Verdict = Pick<Answer, 'outcome' | 'status' | 'decidedBy'>;

/** The outcome of a program's end; `reason` is what it said last. */
export function answerTo(
  ending: ProgramEnding,
  overrides: ExitOverrides,
  onTimeout: 'release' | 'reject',
  reason: string | undefined,
): Answer {
  switch (ending.kind) {
    case 'exit':
      return { ...exitVerdict(ending.code, overrides), reason: reason ?? exitReason(ending.code) };
    case 'signal':
      return { outcome: 'release', status: 500, decidedBy: 'fault', reason: `killed by ${ending.signal}` };
    case 'timeout': {
      const said = `no end after ${formatSeconds(ending.afterMs)}`;
      return onTimeout === 'reject'
        ? { outcome: 'reject', status: 504, decidedBy: 'handler', reason: said }
        : { outcome: 'release', status: 504, decidedBy: 'fault', reason: said };
    }
    case 'stopped':
      return stoppedVerdict(ending.how, overrides, reason);
    case 'cannot-start':
      return { outcome: 'release', status: 501, decidedBy: 'installation', reason: ending.why };
  }
}

/** Reads the key of an override: `4` or `10-19`; undefined when it is neither. */
export function parseExitRange(text: string): { from: number; to: number } | undefined {
  const match = /^(\d{1,3})(?:-(\d{1,3}))?$/.exec(text);
  if (match === null) return undefined;
  const from = Number(match[1]);
  const to = Number(match[2] ?? match[1]);
  return from <= to && to <= 255 ? { from, to } : undefined;
}

const accepted: Verdict = { outcome: 'accept', status: 200, decidedBy: 'handler' };
const later: Verdict = { outcome: 'release', status: 503, decidedBy: 'handler' };
const badMessage: Verdict = { outcome: 'reject', status: 400, decidedBy: 'handler' };
const refused: Verdict = { outcome: 'reject', status: 403, decidedBy: 'handler' };
const failed: Verdict = { outcome: 'reject', status: 500, decidedBy: 'handler' };
const brokenInstallation: Verdict = { outcome: 'release', status: 501, decidedBy: 'installation' };

const verdicts: Record<number, Verdict> = {
  0: accepted,
  64: badMessage, // EX_USAGE
  65: badMessage, // EX_DATAERR
  66: badMessage, // EX_NOINPUT
  67: badMessage, // EX_NOUSER
  69: later, // EX_UNAVAILABLE
  71: later, // EX_OSERR
  74: later, // EX_IOERR
  75: later, // EX_TEMPFAIL
  76: badMessage, // EX_PROTOCOL
  77: refused, // EX_NOPERM
  126: brokenInstallation, // the shell's "cannot execute"
  127: brokenInstallation, // the shell's "not found"
};

function exitVerdict(code: number, overrides: ExitOverrides): Verdict {
  const usual = verdicts[code] ?? failed;
  const override = overrideFor(code, overrides);
  if (override === undefined) return usual;
  if (typeof override === 'number') return { ...usual, status: override, decidedBy: 'handler' };
  if (override === usual.outcome) return { ...usual, decidedBy: 'handler' };
  return { accept: accepted, reject: failed, release: later }[override];
}

function overrideFor(code: number, overrides: ExitOverrides): ExitOverrides[string] | undefined {
  const exact = Object.hasOwn(overrides, String(code)) ? overrides[String(code)] : undefined;
  if (exact !== undefined) return exact;
  for (const [key, value] of Object.entries(overrides)) {
    const range = parseExitRange(key);
    if (range !== undefined && range.from <= code && code <= range.to) return value;
  }
  return undefined;
}

/**
 * Told to stop, a program that still says yes or names a sysexits code meant it. Anything else is how it dies of
 * SIGTERM (1, 143, the signal itself) and says nothing about the command.
 */
function stoppedVerdict(
  how: { code: number } | { signal: string },
  overrides: ExitOverrides,
  reason: string | undefined,
): Answer {
  const meant = 'code' in how && (how.code in verdicts || overrideFor(how.code, overrides) !== undefined);
  if (meant) return { ...exitVerdict(how.code, overrides), reason: reason ?? exitReason(how.code) };
  return { outcome: 'release', status: 503, decidedBy: 'stopping', reason: 'the agent is stopping' };
}

function exitReason(code: number): string | undefined {
  return code === 0 ? undefined : `exit ${code}`;
}
