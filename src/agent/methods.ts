import type { MethodRequest } from '../amqp/methods.js';
import type { HubSession } from '../amqp/session.js';
import { errorText } from '../errors.js';
import type { MethodEvent } from '../handlers/contract.js';
import type { Dispatcher } from '../handlers/dispatch.js';
import type { Answer } from '../handlers/handler.js';
import type { Log } from '../log.js';
import { aborted, anyOf } from '../signals.js';
import { keepChannel, type ChannelOptions } from './channel.js';

export interface MethodOptions extends ChannelOptions {
  /** The hub hands methods over from now on. */
  onServing?: (() => void) | undefined;
  /** A caller has got its answer. */
  onAnswered?: ((answered: AnsweredMethod) => void) | undefined;
}

export interface AnsweredMethod {
  request: Pick<MethodRequest, 'requestId' | 'method' | 'payload'>;
  status: number;
  /** JSON text. */
  payload: Buffer;
  /** From the request's arrival to the hub's word that it has the answer. */
  ms: number;
}

/**
 * Gives every direct method to its handler and the caller the handler's answer, for as long as the session holds.
 * After `stopping` aborts those in hand are answered, and it resolves. A run goes on when the session is over, and is
 * answered if the channel outlives it.
 */
export async function serveMethods(
  session: Pick<HubSession, 'openMethods' | 'over'>,
  dispatcher: Pick<Dispatcher, 'answer'>,
  options: MethodOptions,
): Promise<void> {
  const { stopping, onServing } = options;
  await keepChannel(
    session,
    {
      what: 'methods',
      open: (signal) => session.openMethods(signal),
      work: async (methods, healthy) => {
        const onAnswered = (answered: AnsweredMethod) => {
          healthy();
          options.onAnswered?.(answered);
        };
        methods.serve((request) => {
          void answerMethod(request, methods.over, dispatcher, { ...options, onAnswered });
        });
        onServing?.();
        using over = anyOf(methods.over, session.over);
        using end = anyOf(stopping, over);
        await aborted(end);
        if (!stopping.aborted) over.throwIfAborted();
        await Promise.race([methods.allAnswered(), aborted(over)]);
      },
    },
    options,
  );
}

/** Never rejects. */
async function answerMethod(
  request: MethodRequest,
  over: AbortSignal,
  dispatcher: Pick<Dispatcher, 'answer'>,
  { stopping, clock, log, onAnswered }: MethodOptions,
): Promise<void> {
  const arrivedAt = clock.monotonic();
  log.debug('method invoked', { method: request.method, bytes: request.payload.length });
  const { status, payload } = stopping.aborted
    ? refusal(503, 'the agent is stopping')
    : await replyTo(request, over, dispatcher, log);
  const facts = { method: request.method, status };
  try {
    const { outcome } = await request.respond(status, payload);
    if (outcome !== 'accepted') {
      log.warn('the hub did not take the answer of a method', { ...facts, outcome });
      return;
    }
    const ms = Math.round(clock.monotonic() - arrivedAt);
    log.debug('method answered', { ...facts, ms });
    onAnswered?.({ request, status, payload, ms });
  } catch (error) {
    log.info('the channel was lost before the answer of a method was out', { ...facts, error });
  }
}

interface Reply {
  status: number;
  /** JSON text. */
  payload: Buffer;
}

async function replyTo(
  request: MethodRequest,
  signal: AbortSignal,
  dispatcher: Pick<Dispatcher, 'answer'>,
  log: Log,
): Promise<Reply> {
  const { method } = request;
  if (!isJson(request.payload)) return refusal(400, 'the payload is not JSON');
  try {
    const answer = await dispatcher.answer(eventOf(request), { signal });
    if (answer !== undefined) return replyOf(answer);
    log.warn('no handler for a method', { method });
    return refusal(501, `this device has no method "${method}"`);
  } catch (error) {
    log.error('a method could not be given to its handler', { method, error });
    return refusal(500, errorText(error));
  }
}

function eventOf({ deviceId, moduleId, requestId, method, payload }: MethodRequest): MethodEvent {
  return {
    event: 'method',
    deviceId,
    moduleId,
    requestId,
    method,
    properties: {},
    contentType: 'application/json',
    body: payload,
  };
}

/** A payload goes as it was written when it is JSON, else as a JSON string; a failure without any says why. */
function replyOf({ status, reply, reason }: Answer): Reply {
  if (!isInt32(status)) return refusal(500, `the handler answered with the status ${String(status)}`);
  if (reply === undefined) {
    return status < 400 || reason === undefined
      ? { status, payload: Buffer.from('null') }
      : refusal(status, reason);
  }
  const payload = isJson(reply) ? reply : Buffer.from(JSON.stringify(reply.toString('utf8').trimEnd()));
  if (payload.length > mostPayloadBytes) {
    return refusal(
      500,
      `the handler answered with ${payload.length} bytes; the hub takes ${mostPayloadBytes}`,
    );
  }
  return { status, payload };
}

/** The hub takes 128 KB, in both directions. */
const mostPayloadBytes = 128 * 1024;

function refusal(status: number, message: string): Reply {
  return { status, payload: Buffer.from(JSON.stringify({ message })) };
}

function isInt32(value: number): boolean {
  return (value | 0) === value;
}

function isJson(bytes: Buffer): boolean {
  try {
    JSON.parse(bytes.toString('utf8'));
    return true;
  } catch {
    return false;
  }
}
