import { HubLogin } from '../../../amqp/login.js';
import type { Endpoint } from '../../../amqp/socket.js';
import type { AgentConfig } from '../../../daemon/config.js';
import type { Log } from '../../../log.js';
import type { Checks, Finding, Made } from '../../check/checks.js';
import { printedChecks } from '../../check/printed-checks.js';
import { checkWayIn } from '../../check/way-in.js';
import { readConfigFile } from '../../config-options.js';
import type { Io } from '../../io.js';
import type { CheckFlags } from '../check.js';
import { spoolOf } from '../spool-options.js';
import { findAgent, type Beside } from './agent.js';
import { whoWeAre, type KnownDevice } from './device.js';
import type { FactsRecorder } from './facts.js';
import { checkHandlers } from './handlers.js';
import { attachCommands, attachTelemetry, compareSizes, greetingOf, leftTo, putToken } from './login.js';
import { checkSpool } from './spool.js';

/** A hub that has just been moved takes its time. */
const loginWithinMs = 10_000;

/** What a diagnosis leaves behind. */
export interface Diagnosis {
  exitCode: number;
  device: KnownDevice | undefined;
  /** The connection that it was made on, still open; undefined when there was none. */
  login: HubLogin | undefined;
  /** When the token that the hub took runs out; undefined when it took none. */
  tokenExpiresAt: number | undefined;
}

export interface DiagnosisOptions {
  /** Life of the token that is put. */
  tokenTtlMs?: number | undefined;
  facts: FactsRecorder | undefined;
  log: Log;
}

/** Looks at everything between this device and its hub, from top to bottom, and prints a line for each step. */
export async function diagnose(io: Io, flags: CheckFlags, options: DiagnosisOptions): Promise<Diagnosis> {
  const { log, facts } = options;
  const checks = printedChecks(io, flags, (name, verdict) => facts?.checked(name, verdict));

  const config = await checks.make('config', {}, () => readSettings(io, flags));
  const device = await checks.make('identity', { needs: [config] }, ([settings]) =>
    whoWeAre(io, flags, settings, options),
  );
  const beside = await checks.make('agent', { needs: [config, device], withinMs: 10_000 }, ([settings, us]) =>
    findAgent(io, us.hub.identity, settings),
  );
  const tls = await checkWayIn(checks, device);
  const loggedIn = await logIn(checks, { device, beside, tls }, { ...options, force: flags.force === true });
  await checks.make('spool', { needs: [config, device, beside], withinMs: 15_000 }, ([settings, us, other]) =>
    checkSpool(spoolOf(io, us.hub.identity, {}, settings), other, log),
  );
  await checks.make('handlers', { needs: [config] }, ([settings]) => checkHandlers(settings, log));
  return { exitCode: checks.exitCode, device: device.value, ...loggedIn };
}

async function readSettings(io: Io, flags: CheckFlags): Promise<Finding<AgentConfig>> {
  const { config, files } = await readConfigFile(io, flags);
  const detail = files.length === 0 ? 'there is no file: the defaults' : files.join(', ');
  return { result: 'ok', value: config, detail, facts: { files } };
}

/** The steps that the hub sees, on one connection; those that say who we are only if no agent has said so before. */
async function logIn(
  checks: Checks,
  { device, beside, tls }: { device: Made<KnownDevice>; beside: Made<Beside>; tls: Made<Endpoint> },
  { force, facts, log }: DiagnosisOptions & { force: boolean },
): Promise<Pick<Diagnosis, 'login' | 'tokenExpiresAt'>> {
  const withinMs = loginWithinMs;
  const amqp = await checks.make(
    'amqp',
    { needs: [device, beside, tls], withinMs },
    async ([{ hub, certificate }, other, way], signal) => {
      // A certificate says who we are before anything else is said.
      const left = certificate === undefined || force ? undefined : leftTo(other);
      if (left !== undefined) return left;
      const { identity } = hub;
      const onFrame = facts?.onFrame;
      const login = await HubLogin.open(
        { endpoint: { ...way, certificate }, identity, log, onFrame },
        signal,
      );
      return { ...greetingOf(login), value: login };
    },
  );
  const token = await checks.make(
    'token',
    { needs: [device, beside, amqp], withinMs },
    ([{ hub }, other, login], signal) =>
      (force ? undefined : leftTo(other)) ?? putToken(login, hub.makeToken?.(hub.clock.now()), signal),
  );
  const telemetry = await checks.make('telemetry', { needs: [amqp, token], withinMs }, ([login], signal) =>
    attachTelemetry(login, signal),
  );
  await checks.make('commands', { needs: [amqp, token], withinMs }, ([login], signal) =>
    attachCommands(login, signal),
  );
  await checks.make('message-size', { needs: [telemetry] }, ([link]) => compareSizes(link));
  return { login: amqp.value, tokenExpiresAt: token.value?.expiresAt };
}
