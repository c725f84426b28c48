import { AgentError } from '../../errors.js';
import type { MethodEvent } from '../../handlers/contract.js';
import { createDispatcher, type Dispatcher } from '../../handlers/dispatch.js';
import { ruledHandler, type Answer, type Handler } from '../../handlers/handler.js';
import { programHandler } from '../../handlers/program.js';
import type { Match } from '../../handlers/route.js';
import type { Log } from '../../log.js';
import type { Io } from '../io.js';
import { AnswersOnStdin } from './method-stdin.js';
import type { MethodFlags } from './method.js';

/** Where the answers of `method serve` come from. */
export interface MethodAnswers extends Pick<Dispatcher, 'answer'>, AsyncDisposable {
  /** Brings what runs to an end; resolves when it is there. */
  drain: Dispatcher['drain'];
}

export type MakeAnswers = (surroundings: {
  io: Io;
  log: Log;
  /** A call that somebody else has to answer. */
  onCall: (call: MethodEvent) => void;
  /** There will be no more answers. */
  onEnd: () => void;
}) => MethodAnswers;

/** Checks the flags; what they ask for is begun when the result is called. */
export function methodAnswers(flags: MethodFlags, names: readonly string[]): MakeAnswers {
  const match = { method: names };
  const { exec, stdin } = flags;
  if (stdin === true) {
    const status = flags.status ?? 200;
    return ({ io, ...surroundings }) => new AnswersOnStdin(io.stdin, { match, status, ...surroundings });
  }
  const handler =
    exec === undefined
      ? sameAnswer(flags, match)
      : programHandler({ name: exec, on: 'method', file: exec, match, checkPermissions: false });
  return ({ log }) => createDispatcher({ handlers: [handler], log });
}

function sameAnswer({ status = 200, payload = 'null' }: MethodFlags, match: Match): Handler {
  try {
    JSON.parse(payload);
  } catch (cause) {
    const hint = `a text has quotes of its own: --payload '"text"'`;
    throw new AgentError('usage', '--payload is not JSON', { cause, hint });
  }
  const answer: Answer = {
    outcome: 'accept',
    status,
    reply: Buffer.from(payload),
    decidedBy: 'handler',
  };
  return {
    ...ruledHandler({ name: 'the same for all', match }, 'method', 'given'),
    run: () => Promise.resolve(answer),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}
