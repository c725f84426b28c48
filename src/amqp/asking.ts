import { randomUUID } from 'node:crypto';

import type { Message } from 'rhea';
import {
  Connection,
  Container,
  ReceiverEvents,
  SenderEvents,
  SendOperationFailedError,
  type AwaitableSender,
  type EventContext,
  type Receiver,
  type Session,
} from 'rhea-promise';

import { AgentError } from '../errors.js';
import type { SendOutcome } from '../model.js';
import { anyOf } from '../signals.js';
import { hasTerminus } from './attach.js';
import type { AmqpConnection } from './connection.js';
import { amqpError, fromCondition, toAgentError } from './errors.js';

/**
 * Links for what asks and waits for an answer, a few times a minute: rhea-promise on the connection that we opened.
 * What its promises leave out is put right here: they know neither our signal nor the end of our connection, a
 * refused attach resolves, `send` fails at once without credit, and errors arrive as plain objects.
 */
export interface Asking {
  /** Aborted when the connection is over; the reason says why. */
  readonly over: AbortSignal;
  openSender(what: string, target: string, signal: AbortSignal): Promise<AskingSender>;
  openReceiver(what: string, options: ReceiverRequest, signal: AbortSignal): Promise<AskingReceiver>;
}

export interface AskingSender {
  /** Sends one message, when there is credit for it, and resolves with the disposition. */
  send(message: Message, signal: AbortSignal): Promise<SendOutcome>;
}

export interface ReceiverRequest {
  source: string;
  /** Our end of the link, where replies are sent to it. */
  target?: string;
  credit: number;
  onMessage: (message: Message, settle: (as: 'accept' | 'release') => void) => void;
}

export interface AskingReceiver {
  addCredit(credit: number): void;
}

/** Begins a session on which links can be asked for. */
export async function openAsking(connection: AmqpConnection, signal: AbortSignal): Promise<Asking> {
  const { rhea } = connection;
  const promises = new Connection({
    rheaConnection: rhea,
    container: Container.copyFromContainerInstance(rhea.container),
  });
  // rhea-promise emits what rhea does once more, and an `error` that nobody listens to is thrown into rhea.
  for (const event of ['error', 'connection_error', 'protocol_error'])
    promises.on(event as never, () => undefined);
  const session = await whileAlive(connection, signal, (abortSignal) =>
    promises.createSession({ abortSignal }),
  );
  session.on('session_error' as never, (context: EventContext) => {
    connection.fail(fromCondition(amqpError(context.session?.error), 'the hub ended the session and'));
  });
  return {
    over: connection.over,
    openSender: (what, target, until) => openSender({ connection, session, what }, target, until),
    openReceiver: (what, options, until) => openReceiver({ connection, session, what }, options, until),
  };
}

interface LinkPlace {
  connection: AmqpConnection;
  session: Session;
  what: string;
}

async function openSender(place: LinkPlace, target: string, signal: AbortSignal): Promise<AskingSender> {
  const { connection, session, what } = place;
  const lost = linkEnd(place);
  const sender = await whileAlive(connection, signal, (abortSignal) =>
    session.createAwaitableSender({
      name: `${what}/${randomUUID()}`,
      target: { address: target },
      abortSignal,
      onError: lost.on,
      onClose: lost.on,
    }),
  );
  if (!hasTerminus(sender.target)) await whileAlive(connection, signal, () => lost.promise);
  return {
    async send(message, until) {
      while (!sender.sendable()) {
        await whileAlive(connection, until, () => Promise.race([nextSendable(sender), lost.promise]));
      }
      return whileAlive(connection, until, (abortSignal) =>
        Promise.race([sender.send(message, { abortSignal }).then(accepted, explain), lost.promise]),
      );
    },
  };
}

async function openReceiver(
  place: LinkPlace,
  { source, target, credit, onMessage }: ReceiverRequest,
  signal: AbortSignal,
): Promise<AskingReceiver> {
  const { connection, session, what } = place;
  const lost = linkEnd(place);
  const receiver: Receiver = await whileAlive(connection, signal, (abortSignal) =>
    session.createReceiver({
      name: `${what}/${randomUUID()}`,
      source: { address: source },
      ...(target === undefined ? {} : { target: { address: target } }),
      credit_window: 0,
      autoaccept: false,
      abortSignal,
      onMessage: ({ message, delivery }: EventContext) => {
        if (message === undefined || delivery === undefined) return;
        try {
          onMessage(message, (as) => {
            if (!connection.over.aborted) delivery[as]();
          });
        } catch (error) {
          connection.fail(toAgentError(error));
        }
      },
      onError: lost.on,
      onClose: lost.on,
    }),
  );
  if (!hasTerminus(receiver.source)) await whileAlive(connection, signal, () => lost.promise);
  // A receiver that ends is not noticed by anyone who waits for a message.
  for (const event of [ReceiverEvents.receiverError, ReceiverEvents.receiverClose]) {
    receiver.on(event, () => {
      lost.promise.catch((error: unknown) => {
        connection.fail(toAgentError(error));
      });
    });
  }
  receiver.addCredit(credit);
  return {
    addCredit(more) {
      if (!connection.over.aborted) receiver.addCredit(more);
    },
  };
}

/** A promise that rejects when the hub detaches the link. */
function linkEnd({ what }: LinkPlace): { promise: Promise<never>; on: (context: EventContext) => void } {
  let reject: (error: Error) => void = () => undefined;
  const promise = new Promise<never>((_resolve, fail) => {
    reject = fail;
  });
  promise.catch(() => undefined);
  return {
    promise,
    on: (context) => {
      const error = amqpError((context.sender ?? context.receiver)?.error);
      reject(fromCondition(error, `the hub detached the ${what} and`));
    },
  };
}

/** Runs one request of rhea-promise; rejects with our reasons when `signal` aborts or the connection ends. */
async function whileAlive<T>(
  connection: AmqpConnection,
  signal: AbortSignal,
  request: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  using until = anyOf(signal, connection.over);
  until.throwIfAborted();
  let stop: () => void = () => undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    stop = () => {
      reject(until.reason as Error);
    };
    until.addEventListener('abort', stop);
  });
  try {
    return await Promise.race([request(until), aborted]);
  } catch (error) {
    until.throwIfAborted();
    throw toAgentError(error);
  } finally {
    until.removeEventListener('abort', stop);
  }
}

function nextSendable(sender: AwaitableSender): Promise<void> {
  return new Promise((resolve) => {
    sender.once(SenderEvents.sendable, () => {
      resolve();
    });
  });
}

const accepted = (): SendOutcome => ({ outcome: 'accepted' });

function explain(error: unknown): SendOutcome {
  if (!(error instanceof SendOperationFailedError)) throw error;
  const { condition, description } = amqpError(error.innerError);
  if (error.code === 'rejected') return { outcome: 'rejected', condition, description };
  if (error.code === 'released') return { outcome: 'released' };
  if (error.code === 'modified') return { outcome: 'modified', undeliverableHere: false };
  throw error.innerError === undefined
    ? new AgentError('unavailable', 'the link was lost before the hub answered')
    : fromCondition({ condition, description });
}
