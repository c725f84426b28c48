import { chmod, open } from 'node:fs/promises';

import type { TracedFrame } from '../../../amqp/guard.js';
import { AgentError, errorText } from '../../../errors.js';
import type { DeviceId } from '../../../model.js';
import { redact } from '../../../secret.js';
import type { CheckVerdict } from '../../check/check-line.js';
import { version } from '../../version.js';

/** A frame as it went over the wire; the payload of a transfer is no part of it. */
interface SeenFrame {
  /** Milliseconds since the first one. */
  atMs: number;
  from: 'hub' | 'device';
  frame: string;
  channel: number;
  bytes: number;
  fields: Record<string, unknown>;
}

/** How a hub ends a token that has run out. */
export interface ExpiryFacts {
  /** Whether it was waited for. */
  observed: boolean;
  tokenLifeMs?: number;
  /** From the expiry, by our clock, to the end. Absent when nothing had happened by then. */
  endedAfterMs?: number | undefined;
  waitedMs?: number;
  error?: string | undefined;
  condition?: string | undefined;
}

/** A run of seconds has a few dozen; heartbeats of a long wait are left out. */
const mostFrames = 500;

/** The others are about this machine, and nobody else's business. */
const aboutHub = new Set([
  ...['https', 'clock', 'tls', 'amqp'],
  ...['token', 'telemetry', 'commands', 'message-size'],
]);

/**
 * Writes down what a hub answers, for people who have none: the frames of the way in, and what came of each check.
 * Names and secrets are taken out before anything is kept.
 */
export class FactsRecorder {
  readonly #startedAt = performance.now();
  readonly #frames: SeenFrame[] = [];
  readonly #checks: Record<string, unknown>[] = [];
  sasl: unknown = undefined;
  expiry: ExpiryFacts = { observed: false };

  readonly onFrame = (direction: 'in' | 'out', frame: TracedFrame): void => {
    if (this.#frames.length >= mostFrames || frame.performative === 'empty') return;
    this.#frames.push({
      atMs: Math.round(performance.now() - this.#startedAt),
      from: direction === 'in' ? 'hub' : 'device',
      frame: frame.performative,
      channel: frame.channel,
      bytes: frame.bytes,
      fields: frame.describe(),
    });
  };

  checked(check: string, verdict: CheckVerdict): void {
    if (!aboutHub.has(check)) return;
    if (verdict.result === 'failed') {
      const { code, message, condition } = verdict.error;
      this.#checks.push({ check, result: 'failed', code, error: message, condition });
    } else if (verdict.result === 'skipped') this.#checks.push({ check, result: 'skipped' });
    else this.#checks.push({ check, result: verdict.result, facts: verdict.facts });
  }

  /** Writes the file, mode 0600. Errors: `cannot-create`. */
  async write(file: string, names: DeviceId & { host: string }): Promise<void> {
    const clean = withoutNames(this.#facts(), names);
    try {
      const handle = await open(file, 'w', 0o600);
      try {
        await handle.writeFile(redact(`${JSON.stringify(clean, undefined, 2)}\n`));
      } finally {
        await handle.close();
      }
      await chmod(file, 0o600);
    } catch (error) {
      throw new AgentError('cannot-create', `cannot write the facts to ${file}: ${errorText(error)}`, {
        cause: error,
      });
    }
  }

  #facts(): Record<string, unknown> {
    const fromHub = this.#frames.filter(({ from }) => from === 'hub');
    const first = (frame: string): unknown => fromHub.find((seen) => seen.frame === frame)?.fields;
    const errors = fromHub.flatMap(({ fields }) => (isRecord(fields['error']) ? [fields['error']] : []));
    return {
      v: 1,
      tool: `iothub-device ${version()}`,
      at: new Date().toISOString(),
      sasl: this.sasl,
      open: first('open'),
      begin: first('begin'),
      links: this.#links(fromHub),
      redirect: errors.find(({ condition }) => String(condition).endsWith(':redirect')) ?? null,
      errors,
      putToken: this.#checks.find(({ check }) => check === 'token')?.['facts'],
      tokenExpiry: this.expiry,
      checks: this.#checks,
      frames: this.#frames,
    };
  }

  /** The hub's attach of each link, with the credit that it granted first. */
  #links(fromHub: readonly SeenFrame[]): Record<string, unknown> {
    const attaches = fromHub.filter(({ frame }) => frame === 'attach');
    return Object.fromEntries(
      attaches.map(({ channel, fields }) => {
        const flow = fromHub.find(
          (seen) =>
            seen.frame === 'flow' && seen.channel === channel && seen.fields['handle'] === fields['handle'],
        );
        const [name = ''] = String(fields['name']).split('/');
        return [name, { attach: fields, firstCredit: flow?.fields['link-credit'] }];
      }),
    );
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** Puts `{hub}`, `{device}` and `{module}` where their names are, in keys too. */
function withoutNames(value: unknown, { host, deviceId, moduleId }: DeviceId & { host: string }): unknown {
  const bare = host.replace(/:\d+$/, '');
  const replacements = [
    [bare, '{host}'],
    [bare.split('.')[0] ?? bare, '{hub}'],
    [deviceId, '{device}'],
    [moduleId, '{module}'],
  ].flatMap(([name, stands]) =>
    name === undefined || stands === undefined ? [] : [[word(name), stands] as const],
  );
  const clean = (text: string): string =>
    replacements.reduce((cleaner, [name, stands]) => cleaner.replace(name, stands), text);
  const walk = (at: unknown): unknown => {
    if (typeof at === 'string') return clean(at);
    if (Array.isArray(at)) return at.map(walk);
    if (!isRecord(at)) return at;
    return Object.fromEntries(Object.entries(at).map(([key, inner]) => [clean(key), walk(inner)]));
  };
  return walk(value);
}

/** As a word of its own: a device may be called `d`. */
function word(name: string): RegExp {
  return new RegExp(
    `(?<![A-Za-z0-9])${name.replace(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)}(?![A-Za-z0-9])`,
    'gi',
  );
}
