import { TwinKeeper } from '../../agent/twin.js';
import { AgentError } from '../../errors.js';
import type { TwinEvent } from '../../handlers/contract.js';
import { createDispatcher, type Dispatcher } from '../../handlers/dispatch.js';
import type { Answer } from '../../handlers/handler.js';
import { programHandler } from '../../handlers/program.js';
import { matches, type Match } from '../../handlers/route.js';
import { visible } from '../../visible.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { columns, createPrinter, type Printable } from '../output.js';
import type { DeviceHub } from './hub.js';
import { stayOnline } from './stay-online.js';
import type { TwinWatchFlags } from './twin.js';

/** Follows the desired properties until the flags or a signal say stop. With a program it is what decides and acknowledges. */
export async function watchTwin(
  io: Io,
  hub: DeviceHub,
  flags: TwinWatchFlags,
  args: readonly string[],
): Promise<void> {
  if (args.length > 0 && flags.exec === undefined) {
    throw new AgentError('usage', `unexpected argument: ${args[0] ?? ''}`, {
      hint: 'arguments belong to the program that --exec names',
    });
  }
  const printer = createPrinter(io, flags);
  await using watcher = watcherFor(hub, flags, args);
  io.stop.addEventListener('abort', () => void watcher.drain(io.now));
  const { deviceId, moduleId } = hub.identity;
  await stayOnline(io, hub, flags, (stay) => {
    const answer: Dispatcher['answer'] = async (event, options) => {
      const given = await watcher.answer(event, options);
      const isDecided = given?.decidedBy !== 'stopping';
      if (event.event === 'twin' && isDecided && stay.happened()) {
        await printer.print(changeLine(event, given));
      }
      return given;
    };
    const keeper = new TwinKeeper(
      { takes: watcher.takes, answer },
      {
        ...stay,
        identity: { deviceId, moduleId },
        fromPresent: flags.changes !== true,
        onServing: stay.begun,
      },
    );
    return (session) => keeper.serve(session);
  });
}

type Watcher = Pick<Dispatcher, 'takes' | 'answer' | 'drain'> & AsyncDisposable;

function watcherFor(hub: DeviceHub, { path, exec }: TwinWatchFlags, args: readonly string[]): Watcher {
  const match: Match = { path: path?.replace(/^desired\./, '') };
  if (exec === undefined) return onlooker(match);
  const handler = programHandler({
    name: exec,
    on: 'twin',
    file: exec,
    args,
    match,
    checkPermissions: false,
  });
  return createDispatcher({ handlers: [handler], log: hub.log });
}

/** Looks at what fits, and acknowledges nothing. */
function onlooker(match: Match): Watcher {
  const nothing = () => Promise.resolve();
  return {
    takes: (event) => (matches(match, event) ? 'onlooker' : undefined),
    answer: () => Promise.resolve(undefined),
    drain: nothing,
    [Symbol.asyncDispose]: nothing,
  };
}

/** `{"path":"interval","value":5,"version":7}`, and with a program `"ac"` and `"ad"` as they are reported. */
function changeLine({ path, body, version }: TwinEvent, answer: Answer | undefined): Printable {
  const value = body.toString('utf8');
  return {
    json: () => {
      const facts = JSON.stringify({ version, ac: answer?.status, ad: answer?.reason });
      return jsonOnOneLine(`{"path":${JSON.stringify(path)},"value":${value},${facts.slice(1)}`);
    },
    text: ({ columns: limit }) => {
      const code = answer === undefined ? [] : [String(answer.status)];
      const said = answer?.reason === undefined ? value : `${value}  ${answer.reason}`;
      return columns([visible(path), `version ${version}`, ...code, visible(said)], [24, 12, 3], limit);
    },
  };
}
