import { mkdir } from 'node:fs/promises';

import { serveCommands } from '../../agent/commands.js';
import { runAgent } from '../../agent/run.js';
import { renewTokensDuring } from '../../agent/tokens.js';
import { AgentError, errorText } from '../../errors.js';
import { createDispatcher, type CommandDecision, type Dispatcher } from '../../handlers/dispatch.js';
import { programHandler } from '../../handlers/program.js';
import type { Command, CommandOutcome } from '../../model.js';
import { commandKey } from '../../handlers/command-key.js';
import { Alarm } from '../alarm.js';
import { dumpBody } from '../dump.js';
import type { Io } from '../io.js';
import { createPrinter } from '../output.js';
import { commandLine } from '../output-message.js';
import { commandParts, fillTemplate, parseTemplate } from '../template.js';
import type { DeviceHub } from './hub.js';
import type { ReceiveFlags } from './receive.js';

/**
 * Receives commands until the count, the idle time, the time or a signal says stop. A command is settled only after
 * its line is out, so that what the reader did not get goes back to the hub.
 */
export async function receiveCommands(
  io: Io,
  hub: DeviceHub,
  flags: ReceiveFlags,
  programArgs: readonly string[],
): Promise<void> {
  if (programArgs.length > 0 && flags.exec === undefined) {
    throw new AgentError('usage', `unexpected argument: ${programArgs[0] ?? ''}`, {
      hint: 'arguments belong to the program that --exec names',
    });
  }
  const enough = new AbortController();
  const stopping = AbortSignal.any([io.stop, io.stdout.readerGone, enough.signal]);
  const decide = deciderOf(hub, flags, programArgs);
  const print = await printerOf(io, flags);
  const receiver = new Receiver(
    flags.count ?? Infinity,
    async (command) => {
      idle.restart();
      await print(command);
      // A reader that has gone may not have got it.
      return io.stdout.readerGone.aborted ? { outcome: 'release' } : decide.decide(command);
    },
    enough,
  );
  const idle = new Alarm(flags.idle, enough);
  const whole = new Alarm(flags.for, enough);

  let online = false;
  try {
    await runAgent({
      open: (signal) => hub.open(['commands'], signal),
      work: async (session, life) => {
        if (!online) {
          idle.restart();
          whole.restart();
        }
        online = true;
        await renewTokensDuring(session, hub, () =>
          serveCommands(session, receiver, { ...life, log: hub.log, onSettled: life.healthy }),
        );
      },
      stopping,
      abandon: io.now,
      givesUp: () => !online,
      clock: hub.clock,
      log: hub.log,
    });
  } finally {
    idle.stop();
    whole.stop();
    await decide[Symbol.asyncDispose]();
  }
  if (!io.stdout.readerGone.aborted) receiver.throwIfFailed();
  io.stop.throwIfAborted();
}

interface Decider extends AsyncDisposable {
  decide(command: Command): Promise<CommandOutcome>;
}

function deciderOf(hub: DeviceHub, flags: ReceiveFlags, args: readonly string[]): Decider {
  if (flags.exec === undefined) {
    const { settle, rejectReason } = flags;
    const outcome = settle === 'reject' ? { outcome: settle, reason: rejectReason } : { outcome: settle };
    return { decide: () => Promise.resolve(outcome), [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  const handler = programHandler({ name: flags.exec, file: flags.exec, args, checkPermissions: false });
  const dispatcher = createDispatcher({ handlers: [handler], concurrency: 1, log: hub.log });
  return {
    decide: (command) => dispatcher.handle(command),
    [Symbol.asyncDispose]: () => dispatcher[Symbol.asyncDispose](),
  };
}

/** One command at a time, and no more than were asked for: the credit that the hub gets. */
class Receiver implements Pick<Dispatcher, 'freeSlots' | 'onFreeSlots' | 'take' | 'settled'> {
  readonly #listeners = new Set<(free: number) => void>();
  readonly #handle: (command: Command) => Promise<CommandOutcome>;
  readonly #enough: AbortController;
  #wanted: number;
  #busy = false;
  #failure: { error: unknown } | undefined;

  constructor(
    wanted: number,
    handle: (command: Command) => Promise<CommandOutcome>,
    enough: AbortController,
  ) {
    this.#wanted = wanted;
    this.#handle = handle;
    this.#enough = enough;
  }

  get freeSlots(): number {
    return this.#busy || this.#wanted === 0 ? 0 : 1;
  }

  onFreeSlots(listener: (free: number) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  take(command: Command, onDecided: (decision: CommandDecision) => void): void {
    this.#busy = true;
    const startedAt = performance.now();
    void this.#outcomeOf(command).then((outcome) => {
      const key = commandKey(command) ?? command.lockToken;
      const elapsedMs = performance.now() - startedAt;
      onDecided({ ...outcome, key, attempt: 1, from: 'handler', elapsedMs });
      this.#busy = false;
      this.#wanted--;
      if (this.#wanted === 0) this.#enough.abort();
      for (const listener of this.#listeners) listener(this.freeSlots);
    });
  }

  settled(): void {
    // Nothing is kept of a command that has been shown.
  }

  /** Throws why a command could not be shown, if that is why it is over. */
  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #outcomeOf(command: Command): Promise<CommandOutcome> {
    try {
      return await this.#handle(command);
    } catch (error) {
      this.#failure = { error };
      this.#enough.abort();
      return { outcome: 'release', reason: errorText(error) };
    }
  }
}

/** Prints a command in the form that the flags ask for, and writes its body where `--dump` says. */
async function printerOf(io: Io, flags: ReceiveFlags): Promise<(command: Command) => Promise<void>> {
  const end = flags.null === true ? '\0' : '\n';
  const template = flags.format === undefined ? undefined : parseTemplate(flags.format, commandParts);
  const printer = createPrinter(io, flags);
  if (flags.dump !== undefined) await mkdir(flags.dump, { recursive: true });
  let dumped = 0;
  return async (command) => {
    if (flags.dump !== undefined) await dumpBody(flags.dump, ++dumped, command);
    if (template !== undefined)
      await io.stdout.write(Buffer.concat([fillTemplate(template, command), Buffer.from(end)]));
    else await printer.print(commandLine(command), end);
    await io.stdout.flush();
  };
}
