import { basename, resolve } from 'node:path';

import type { ExitOverrides } from '../handlers/exit-table.js';
import { defaultTimeoutMs, type HandlerRules, type InboxRules, type Order } from '../handlers/handler.js';
import type { EventKind } from '../handlers/contract.js';
import type { Match } from '../handlers/route.js';
import { formatDuration } from '../units.js';
import type { Path, Problem } from './config-positions.js';
import type { ConfigFile } from './config-schema.js';
import type { GrowingDelay } from './config-values.js';

/** Who handles what. */
export interface HandlingConfig {
  commands: {
    concurrency: number;
    order: Order;
    unmatched: 'reject' | 'release';
    releaseDelay: GrowingDelay;
    /** How long outcomes are remembered. */
    dedupeMs: number;
  };
  inbox: { retryDelay: GrowingDelay; maximumWaiting: number; maximumDead: number };
  /** In the order in which they are tried. */
  handlers: HandlerConfig[];
  handlerDirectories: {
    paths: string[];
    /** What holds for the handlers that are found there. */
    rules: Record<EventKind, Omit<HandlerConfigRules, 'name' | 'on' | 'match'>>;
  };
}

export type HandlerConfig = HandlerConfigRules &
  (
    | {
        form: 'program';
        exec: Exec;
        cwd: string | undefined;
        exit: ExitOverrides;
        onTimeout: 'release' | 'reject';
      }
    | { form: 'stream'; exec: Exec; cwd: string | undefined }
    | { form: 'module'; file: string; isolate: boolean }
  );

/** Program, as a path or a name to be found in PATH, and its arguments. */
export type Exec = [program: string, ...args: string[]];

export type HandlerConfigRules = HandlerRules & { on: EventKind; match: Match; timeoutMs: number };

/** With an inbox nobody waits, so a job may take its time. */
const inboxTimeoutMs = 3_600_000;

export function handlingConfig(file: ConfigFile, folder: (path: Path) => string): HandlingConfig {
  const { commands, inbox, handlers } = file;
  const paths = typeof commands.handlers_dir === 'string' ? [commands.handlers_dir] : commands.handlers_dir;
  const plain = { settle: undefined, max_attempts: undefined, max_age: undefined };
  const rules = (on: EventKind) => ({
    timeoutMs: timeoutOf({ ...plain, on, timeout: undefined }, file),
    order: commands.order,
    inbox: on === 'command' ? inboxRules(plain, file) : undefined,
  });
  return {
    commands: {
      concurrency: commands.concurrency,
      order: commands.order,
      unmatched: commands.unmatched,
      releaseDelay: commands.release_delay,
      dedupeMs: commands.dedupe,
    },
    inbox: {
      retryDelay: inbox.retry_delay,
      maximumWaiting: inbox.max_waiting,
      maximumDead: inbox.max_dead,
    },
    handlers: handlers.map((handler, at) => handlerConfig(handler, file, folder(['handlers', at]))),
    handlerDirectories: {
      paths: paths.map((path) => resolve(folder(['commands', 'handlers_dir']), path)),
      rules: { command: rules('command'), method: rules('method'), twin: rules('twin') },
    },
  };
}

type HandlerTable = ConfigFile['handlers'][number];

function handlerConfig(handler: HandlerTable, file: ConfigFile, folder: string): HandlerConfig {
  const { on, module, mode } = handler;
  const rules: HandlerConfigRules = {
    name: nameOf(handler),
    on,
    match: matchOf(handler),
    timeoutMs: timeoutOf(handler, file),
    order: handler.order ?? file.commands.order,
    afterCrash: handler.after_crash ?? 'run',
    reply: handler.reply,
    inbox: on === 'command' ? inboxRules(handler, file) : undefined,
  };
  if (module !== undefined) {
    return { ...rules, form: 'module', file: resolve(folder, module), isolate: handler.isolate };
  }
  const [program = '', ...args] = handler.exec ?? [];
  // A bare name is looked up in PATH.
  const exec: Exec = [program.includes('/') ? resolve(folder, program) : program, ...args];
  const cwd = handler.cwd === undefined ? undefined : resolve(folder, handler.cwd);
  if (mode === 'stream') return { ...rules, form: 'stream', exec, cwd };
  const onTimeout = handler.on_timeout ?? 'release';
  return { ...rules, form: 'program', exec, cwd, exit: handler.exit, onTimeout };
}

function nameOf({ name, exec, module }: HandlerTable): string {
  return name ?? basename(module ?? exec?.[0] ?? '');
}

function matchOf({ match }: HandlerTable): Match {
  const { property, content_type, message_id, body, method, path, device_id } = match;
  return {
    property,
    contentType: content_type,
    messageId: message_id,
    body,
    method,
    path,
    deviceId: device_id,
  };
}

function timeoutOf(
  handler: Pick<HandlerTable, 'on' | 'timeout' | 'settle'>,
  { commands }: ConfigFile,
): number {
  if (handler.timeout !== undefined) return handler.timeout;
  if (handler.on !== 'command') return defaultTimeoutMs[handler.on];
  return (handler.settle ?? commands.settle) === 'inbox' ? inboxTimeoutMs : commands.timeout;
}

function inboxRules(
  handler: Pick<HandlerTable, 'settle' | 'max_attempts' | 'max_age'>,
  { commands, inbox }: ConfigFile,
): InboxRules | undefined {
  if ((handler.settle ?? commands.settle) !== 'inbox') return undefined;
  return {
    maximumAttempts: handler.max_attempts ?? inbox.max_attempts,
    maximumAgeMs: handler.max_age ?? inbox.max_age,
  };
}

/** What the schema cannot say: keys that do not go together, and limits that depend on others. */
export function handlingProblems(file: ConfigFile): Problem[] {
  return file.handlers.flatMap((handler, at) =>
    [
      ...nameProblems(handler, file.handlers.slice(0, at)),
      ...misplacedKeys(handler),
      ...matchProblems(handler),
      ...timeoutProblems(handler, file),
      ...inboxProblems(handler, file),
      ...exitProblems(handler),
    ].map(([path, what]) => ({ path: ['handlers', at, ...path], what })),
  );
}

type Found = [path: string[], what: string];

function nameProblems(handler: HandlerTable, before: readonly HandlerTable[]): Found[] {
  const name = nameOf(handler);
  if (!before.some((other) => nameOf(other) === name)) return [];
  return [[['name'], `another handler is called "${name}"; the log could not tell them apart`]];
}

const commandKeys = ['order', 'after_crash', 'reply', 'settle', 'max_attempts', 'max_age'] as const;

function misplacedKeys(handler: HandlerTable): Found[] {
  const { on, module, mode } = handler;
  const isProgram = module === undefined && mode === 'program';
  const given = (keys: readonly (keyof HandlerTable)[], why: string): Found[] =>
    keys.filter((key) => isGiven(handler[key])).map((key) => [[key], why]);
  return [
    ...(on === 'command' ? [] : given(commandKeys, `only with on = "command"`)),
    ...(isProgram ? [] : given(['exit', 'on_timeout'], 'only for a program that is started for each event')),
    ...(module === undefined ? [] : given(['cwd'], 'a module runs inside the agent, in its directory')),
    ...(module !== undefined && mode === 'stream' ? given(['mode'], 'only with exec') : []),
    ...(module === undefined && handler.isolate
      ? given(['isolate'], 'only with module: a program is isolated')
      : []),
  ];
}

function isGiven(value: unknown): boolean {
  return value !== undefined && !(typeof value === 'object' && Object.keys(value ?? {}).length === 0);
}

const matchKeys: Record<EventKind, readonly string[]> = {
  command: ['property', 'content_type', 'message_id', 'body', 'device_id'],
  method: ['method', 'body', 'device_id'],
  twin: ['path', 'body', 'device_id'],
};

function matchProblems({ on, match }: HandlerTable): Found[] {
  return Object.entries(match)
    .filter(([key, value]) => value !== undefined && !matchKeys[on].includes(key))
    .map(([key]) => [['match', key], `on = "${on}" has ${matchKeys[on].join(', ')}`]);
}

/** The hub locks a command for 60 s; killing a handler takes up to 5 s of them, and the settlement needs some. */
const longestTimeoutMs = { command: 50_000, method: 300_000, twin: 3_600_000 } as const;

function timeoutProblems(handler: HandlerTable, { commands }: ConfigFile): Found[] {
  const { on, timeout } = handler;
  const isInbox = on === 'command' && (handler.settle ?? commands.settle) === 'inbox';
  if (timeout === undefined || isInbox || timeout <= longestTimeoutMs[on]) return [];
  const limit = formatDuration(longestTimeoutMs[on]);
  const why: Record<EventKind, string> = {
    command: `at most ${limit}, as the hub waits for 60 s; with settle = "inbox" it may take longer`,
    method: `at most ${limit}: no caller waits longer`,
    twin: `at most ${limit}`,
  };
  return [[['timeout'], why[on]]];
}

function inboxProblems(handler: HandlerTable, { commands }: ConfigFile): Found[] {
  if (handler.on !== 'command' || (handler.settle ?? commands.settle) === 'inbox') return [];
  const keys = (['max_attempts', 'max_age'] as const).filter((key) => handler[key] !== undefined);
  return keys.map((key) => [[key], 'only with settle = "inbox"']);
}

function exitProblems({ on, exit }: HandlerTable): Found[] {
  if (on !== 'command') return [];
  return Object.entries(exit)
    .filter(([, outcome]) => typeof outcome === 'number')
    .map(([code]) => [['exit', code], 'a command has an outcome: write "accept", "reject" or "release"']);
}
