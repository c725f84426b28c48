import { AgentError } from '../../../errors.js';
import { formatDuration } from '../../../units.js';
import { visible } from '../../../visible.js';
import { exitCodes } from '../../exit-codes.js';
import type { Io } from '../../io.js';
import { jsonOnOneLine } from '../../json-text.js';
import { createPrinter } from '../../output.js';
import { certificatesOf, oneLine } from '../../pem-files.js';
import type { ExpiresFlags } from '../cert.js';
import { needed } from './needed.js';

/** `cert expires`: the first certificate of the chain to end decides. */
export async function tellExpiry(io: Io, given: string | undefined, flags: ExpiresFlags): Promise<void> {
  const file = needed(given);
  const chain = await certificatesOf(file);
  const [first] = [...chain].sort((a, b) => Date.parse(a.validTo) - Date.parse(b.validTo));
  if (first === undefined) throw new AgentError('data', `there is no certificate in ${file}`);
  const now = Date.now();
  const [from, until] = [Date.parse(first.validFrom), Date.parse(first.validTo)];
  const state =
    now < from ? 'not-yet' : now > until ? 'expired' : until - now < flags.warn ? 'soon' : 'valid';
  const facts = { file, subject: oneLine(first.subject), state, expires: new Date(until).toISOString() };
  const text = {
    'not-yet': `not valid before ${new Date(from).toISOString()}, or the clock is wrong`,
    expired: `expired ${about(now - until)} ago`,
    soon: `expires in ${about(until - now)}`,
    valid: `expires in ${about(until - now)}`,
  }[state];
  await createPrinter(io, flags).print({
    json: () => jsonOnOneLine(JSON.stringify(facts)),
    text: () => visible(`${facts.subject}  ${facts.expires.slice(0, 10)}  ${text}`),
  });
  if (state === 'soon') io.exitCode = exitCodes['try-again'];
  if (state === 'expired' || state === 'not-yet') io.exitCode = exitCodes.data;
}

/** In days where there are some. */
function about(ms: number): string {
  const unitMs = ms >= 2 * 86_400_000 ? 86_400_000 : 60_000;
  return formatDuration(Math.max(Math.floor(ms / unitMs), 1) * unitMs);
}
