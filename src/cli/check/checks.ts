import { toAgentError } from '../../amqp/errors.js';
import { AgentError, type ErrorCode } from '../../errors.js';
import { anyOf, rejectionOf } from '../../signals.js';
import { formatDuration } from '../../units.js';
import { exitCodeFor, exitCodes } from '../exit-codes.js';
import type { CheckVerdict } from './check-line.js';

/** What a check found. The `value` is for the checks that need it: without one they are skipped. */
export type Finding<T> =
  | {
      result: 'ok' | 'warn';
      detail: string;
      value?: T | undefined;
      hint?: string | undefined;
      facts?: Facts | undefined;
    }
  /** As if it had thrown the error, with a value all the same. */
  | { result: 'failed'; error: AgentError; value: T | undefined }
  | { result: 'skipped'; detail: string; hint?: string | undefined };

/** What a program may want to know of it; names are stable, times RFC 3339. */
export type Facts = Record<string, unknown>;

/** A check that has been made. */
export interface Made<T> {
  readonly name: string;
  readonly value: T | undefined;
}

export interface CheckOptions<N extends readonly unknown[]> {
  /** Checks whose values this one needs: without them it would only say the same again. */
  needs?: { readonly [I in keyof N]: Made<N[I]> };
  /** Milliseconds that it may take. Default 5 s. */
  withinMs?: number;
  /** What it means that nothing answers in that time. Default: `unavailable`. */
  ifSilent?: { code?: ErrorCode; hint: string };
}

const defaultWithinMs = 5_000;

/**
 * Makes checks one after the other and tells what each has found. A check that throws has failed; the exit code is
 * that of the first one which did.
 *
 *     const dns = await checks.make('dns', { needs: [place] }, ([{ host }]) => lookUp(host));
 *     const tcp = await checks.make('tcp', { needs: [place, dns] }, …);
 */
export class Checks {
  readonly #tell: (name: string, verdict: CheckVerdict) => Promise<void>;
  readonly #stop: AbortSignal;
  readonly #patience: AbortSignal;
  #exitCode: number = exitCodes.ok;

  /** `stop` ends everything with its reason; when `timeoutMs` are over, what has not been checked is skipped. */
  constructor(
    tell: (name: string, verdict: CheckVerdict) => Promise<void>,
    { stop, timeoutMs }: { stop: AbortSignal; timeoutMs: number },
  ) {
    this.#tell = tell;
    this.#stop = stop;
    this.#patience = Number.isFinite(timeoutMs)
      ? AbortSignal.timeout(timeoutMs)
      : new AbortController().signal;
  }

  get exitCode(): number {
    return this.#exitCode;
  }

  async make<T, const N extends readonly unknown[] = []>(
    name: string,
    { needs, withinMs = defaultWithinMs, ifSilent }: CheckOptions<N>,
    find: (needed: N, signal: AbortSignal) => Finding<T> | Promise<Finding<T>>,
  ): Promise<Made<T>> {
    const asked: readonly Made<unknown>[] = needs ?? [];
    const missing = asked.find(({ value }) => value === undefined);
    if (missing !== undefined) return this.#skip(name, { needs: missing.name });
    if (this.#patience.aborted) return this.#skip(name, { detail: 'no time left (--timeout)' });
    const startedAt = performance.now();
    const ms = (): number => Math.round(performance.now() - startedAt);
    try {
      const values = asked.map(({ value }) => value) as unknown as N;
      const found = await this.#within({ withinMs, ifSilent }, (signal) => find(values, signal));
      if (found.result === 'skipped') return await this.#skip(name, found);
      const { value, ...verdict } = found;
      if (verdict.result === 'failed') await this.#fail(name, verdict.error, ms());
      else await this.#tell(name, { ...verdict, ms: ms() });
      return { name, value };
    } catch (thrown) {
      this.#stop.throwIfAborted();
      await this.#fail(name, toAgentError(thrown), ms());
      return { name, value: undefined };
    }
  }

  async #fail(name: string, error: AgentError, ms: number): Promise<void> {
    if (this.#exitCode === exitCodes.ok) this.#exitCode = exitCodeFor(error.code);
    await this.#tell(name, { result: 'failed', error, ms });
  }

  /** Races it, because not everything that is asked can be called off: a look-up by name cannot. */
  async #within<T>(
    { withinMs, ifSilent }: { withinMs: number; ifSilent: CheckOptions<[]>['ifSilent'] },
    find: (signal: AbortSignal) => T | Promise<T>,
  ): Promise<T> {
    const deadline = AbortSignal.timeout(withinMs);
    using until = anyOf(this.#stop, this.#patience, deadline);
    until.throwIfAborted();
    try {
      return await Promise.race([find(until), rejectionOf(until)]);
    } catch (error) {
      if (this.#stop.aborted || !until.aborted) throw error;
      const after = deadline.aborted ? formatDuration(withinMs) : 'the time that --timeout gives';
      const { code = 'unavailable', hint } = ifSilent ?? {};
      throw new AgentError(code, `no answer within ${after}`, { hint });
    }
  }

  async #skip(
    name: string,
    why: { needs?: string; detail?: string; hint?: string | undefined },
  ): Promise<Made<never>> {
    await this.#tell(name, { result: 'skipped', ...why });
    return { name, value: undefined };
  }
}
