import { saslMechanisms } from '../../../amqp/sasl-mechanisms.js';
import { AgentError, errorText } from '../../../errors.js';
import type { Log } from '../../../log.js';
import { anyOf } from '../../../signals.js';
import { formatDuration } from '../../../units.js';
import type { Io } from '../../io.js';
import type { CheckFlags } from '../check.js';
import { diagnose, type Diagnosis } from './diagnose.js';
import { FactsRecorder, type ExpiryFacts } from './facts.js';

/** Long enough to attach the links, and no longer than somebody waits who wants to see it run out. */
const shortTokenMs = 60_000;
const saslWithinMs = 5_000;

/** Makes all checks and writes down the facts if they are asked for. Returns the exit code. */
export async function check(io: Io, flags: CheckFlags, log: Log): Promise<number> {
  if (flags.watchExpiry !== undefined && flags.facts === undefined) {
    throw new AgentError('usage', '--watch-expiry needs --facts FILE');
  }
  const facts = flags.facts === undefined ? undefined : new FactsRecorder();
  const tokenTtlMs = flags.watchExpiry === undefined ? undefined : shortTokenMs;
  const diagnosis = await diagnose(io, flags, { facts, tokenTtlMs, log });
  const { device, login, exitCode } = diagnosis;
  try {
    if (facts === undefined || flags.facts === undefined) return exitCode;
    if (device === undefined)
      throw new AgentError('config', 'there are no facts about a hub that is not named');
    if (login !== undefined) facts.sasl = await offeredMechanisms(io, diagnosis);
    if (flags.watchExpiry !== undefined) facts.expiry = await watchExpiry(io, diagnosis, flags.watchExpiry);
    await facts.write(flags.facts, device.hub.identity);
    return exitCode;
  } finally {
    await login?.[Symbol.asyncDispose]();
  }
}

async function offeredMechanisms(io: Io, { device }: Diagnosis): Promise<unknown> {
  if (device === undefined) return undefined;
  using until = anyOf(io.stop, AbortSignal.timeout(saslWithinMs));
  try {
    return { offered: (await saslMechanisms(device.ways.direct ?? device.ways.https, until)) ?? null };
  } catch (error) {
    io.stop.throwIfAborted();
    return { error: errorText(error) };
  }
}

/** Stays connected with a token that is not renewed, until the hub ends it. */
async function watchExpiry(
  io: Io,
  { login, tokenExpiresAt }: Diagnosis,
  patienceMs: number,
): Promise<ExpiryFacts> {
  if (login === undefined || tokenExpiresAt === undefined) return { observed: false };
  await io.stderr.write(
    `waiting for the hub to end the token, which runs out at ${new Date(tokenExpiresAt).toISOString()}; at most ${formatDuration(patienceMs)}\n`,
  );
  const startedAt = Date.now();
  using until = anyOf(io.stop, AbortSignal.timeout(patienceMs));
  const error = await login.ended(until);
  io.stop.throwIfAborted();
  return {
    observed: true,
    tokenLifeMs: shortTokenMs,
    waitedMs: Date.now() - startedAt,
    endedAfterMs: error && Date.now() - tokenExpiresAt,
    error: error?.message,
    condition: error?.condition,
  };
}
