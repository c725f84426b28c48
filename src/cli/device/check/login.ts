import type { HubLogin } from '../../../amqp/login.js';
import type { Token } from '../../../identity/token.js';
import { hubLimits } from '../../../model.js';
import { anyOf } from '../../../signals.js';
import { formatDuration, formatSize } from '../../../units.js';
import type { Finding } from '../../check/checks.js';
import type { Beside } from './agent.js';

/** The hub grants credit with the attach; one that waits is short of something. */
const creditWithinMs = 2_000;

/** The hub's side of the AMQP connection, which is there before anybody has said who he is. */
export function greetingOf({
  greeting,
}: HubLogin): Omit<Extract<Finding<never>, { facts?: unknown }>, 'value'> {
  const { containerId, maxFrameBytes, idleTimeoutMs } = greeting;
  const frames = maxFrameBytes === undefined ? 'of any size' : `up to ${formatSize(maxFrameBytes)}`;
  const idle =
    idleTimeoutMs === undefined
      ? ''
      : `; it ends a connection that is silent for ${formatDuration(idleTimeoutMs)}`;
  return {
    result: 'ok',
    detail: `AMQP 1.0 without SASL, frames ${frames}${idle}`,
    facts: { containerId, maxFrameBytes, idleTimeoutMs },
  };
}

/** Why we do not log in: the hub would take the connection from the agent that has it. */
export function leftTo(beside: Beside): { result: 'skipped'; detail: string; hint: string } | undefined {
  if (beside.agent === 'none') return undefined;
  return {
    result: 'skipped',
    detail: `left to the agent (${beside.name}): a second login would put it offline`,
    hint: '--force logs in all the same; the agent is offline for a minute then, and comes back by itself',
  };
}

/** Puts the token, if there is one; a client certificate has said who we are before. */
export async function putToken(
  login: HubLogin,
  token: Token | undefined,
  signal: AbortSignal,
): Promise<Finding<{ expiresAt: number | undefined }>> {
  if (token === undefined) {
    return {
      result: 'ok',
      value: { expiresAt: undefined },
      detail: 'none is needed: the certificate is the login',
    };
  }
  const { expiresAt } = token;
  const { status, description } = await login.putToken(token, signal);
  const life = formatDuration(Math.round((expiresAt - Date.now()) / 1000) * 1000);
  return {
    result: 'ok',
    value: { expiresAt },
    detail: `the hub takes it; it is good for ${life}`,
    facts: { status, description, expiresAt: new Date(expiresAt).toISOString() },
  };
}

/** What the hub says of the largest message, once telemetry is attached. */
export interface TelemetryFacts {
  maxMessageBytes: number | undefined;
}

export async function attachTelemetry(
  login: HubLogin,
  signal: AbortSignal,
): Promise<Finding<TelemetryFacts>> {
  const link = await login.attachTelemetry(signal);
  const { maxMessageBytes } = link;
  const value = { maxMessageBytes };
  using until = anyOf(signal, AbortSignal.timeout(creditWithinMs));
  const credit = await link.credit(until).catch((error: unknown) => {
    signal.throwIfAborted();
    if (!until.aborted) throw error;
    return 0;
  });
  const facts = { credit, maxMessageBytes };
  if (credit > 0) {
    return {
      result: 'ok',
      value,
      detail: `attached; the hub takes ${String(credit)} messages at once`,
      facts,
    };
  }
  return {
    ...{ result: 'warn', value, facts },
    detail: `attached, but the hub takes no message for now (no credit within ${formatDuration(creditWithinMs)})`,
    hint: 'it throttles, or a quota of the day is used up',
  };
}

export async function attachCommands(login: HubLogin, signal: AbortSignal): Promise<Finding<true>> {
  await login.attachCommands(signal);
  return { result: 'ok', detail: 'attached' };
}

/** Links of the hub take more than one of its messages may have, so theirs is no promise. */
export function compareSizes({ maxMessageBytes }: TelemetryFacts): Finding<true> {
  const { telemetryBytes } = hubLimits;
  const link =
    maxMessageBytes === undefined
      ? 'the link names no limit'
      : `the link takes ${formatSize(maxMessageBytes)}`;
  const facts = { linkBytes: maxMessageBytes, hubBytes: telemetryBytes };
  const detail = `${link}; a message may have ${formatSize(telemetryBytes)} with its properties`;
  if ((maxMessageBytes ?? Infinity) >= telemetryBytes) return { result: 'ok', detail, facts };
  const hint = 'this hub takes less than Azure IoT Hub does: larger messages will be refused';
  return { result: 'warn', detail, hint, facts };
}
