import { AgentError } from '../../errors.js';
import { formatDuration } from '../../units.js';
import type { Finding } from './checks.js';

/** What the hub's clock said, and ours at the same moment: milliseconds since the epoch. */
export interface ClockReading {
  theirs: number;
  ours: number;
  /** Whether the server could prove who it is. */
  isTrusted: boolean;
}

/** A token carries a time, and so do messages and certificates: a clock that is off breaks one after the other. */
export function compareClocks({ theirs, ours, isTrusted }: ClockReading): Finding<true> {
  const offMs = ours - theirs;
  const off = roughly(Math.abs(offMs));
  const facts = { offsetSeconds: Math.round(offMs / 1000) };
  const detail = `this machine's clock is ${off} ${offMs > 0 ? 'fast' : 'slow'}`;
  const hub = `the hub says ${new Date(theirs).toISOString()}${isTrusted ? '' : ', and could not prove who it is'}`;
  const hint = `${hub}\nset the clock, and keep it right: timedatectl set-ntp true`;
  if (Math.abs(offMs) >= failAfterMs) throw new AgentError('config', detail, { hint });
  if (Math.abs(offMs) >= warnAfterMs) return { result: 'warn', detail, hint, value: true, facts };
  return { result: 'ok', detail: 'agrees with that of the hub', value: true, facts };
}

/** The header has whole seconds, and the answer has been on its way. */
const warnAfterMs = 30_000;
/** Kerberos refuses from here on; a token of the usual hour would still do, but nothing with a shorter life. */
const failAfterMs = 5 * 60_000;

/** A header of whole seconds is no reason to speak of seconds beside hours. */
function roughly(ms: number): string {
  const unit = ms >= 600_000 ? 60_000 : 1_000;
  return formatDuration(Math.round(ms / unit) * unit);
}
