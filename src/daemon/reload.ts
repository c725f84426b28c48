import { isDeepStrictEqual } from 'node:util';

import { AgentError } from '../errors.js';
import type { Log } from '../log.js';
import type { AgentConfig, ParsedConfig } from './config.js';
import type { ConfigFile } from './config-schema.js';

/** What a reload came to: names of keys, as in the file. */
export interface Reloaded {
  /** In force now. */
  changed: string[];
  /** Read, and in force when the agent is started again. */
  needsRestart: string[];
}

export interface ReloadOptions {
  /** What the agent was started with. */
  current: ParsedConfig;
  /** Reads the file anew. Errors: `config`, with every problem. */
  read: () => Promise<ParsedConfig>;
  /** Puts into force what can be while the agent runs: all of it, or none, by an error. */
  apply: (config: AgentConfig) => Promise<void>;
  log: Log;
  /** Told of each reload whether the file was taken. */
  onReloaded: (isTaken: boolean) => void;
}

/**
 * Keys that can change while the agent runs. Those of [commands] and [inbox] are what handlers are made with.
 */
const live = new Set([
  'log.level',
  'handlers',
  'commands.handlers_dir',
  'commands.order',
  'commands.settle',
  'commands.timeout',
  'inbox.max_age',
  'inbox.max_attempts',
  'spool.max_age',
  'spool.max_size',
  'spool.when_full',
]);

/**
 * Reads the configuration again, all or nothing: a file with a mistake is refused whole, and the agent goes on with
 * what it has. The function rejects with why; it is logged as well, because a signal has nobody to tell.
 */
export function createReload({
  current,
  read,
  apply,
  log,
  onReloaded,
}: ReloadOptions): () => Promise<Reloaded> {
  // What keys that need a restart are compared with: what is in force.
  let inForce = current.values;
  let running: Promise<unknown> = Promise.resolve();

  async function reload(): Promise<Reloaded> {
    try {
      const { config, values } = await read();
      const different = changedKeys(inForce, values);
      await apply(config);
      const changed = different.filter((key) => live.has(key));
      const needsRestart = different.filter((key) => !live.has(key));
      inForce = withKeys(inForce, values, changed);
      log.info('configuration read again', {
        changed: changed.join(', ') || 'nothing',
        ...(needsRestart.length > 0 && { needsRestart: needsRestart.join(', ') }),
      });
      onReloaded(true);
      return { changed, needsRestart };
    } catch (error) {
      onReloaded(false);
      log.error('the configuration is refused; the former stays in force', { error });
      if (error instanceof AgentError) throw error;
      throw new AgentError('bug', 'the configuration could not be read again', { cause: error });
    }
  }

  // One after the other: each has to see what the one before did.
  return () => {
    const next = running.then(reload);
    running = next.catch(() => undefined);
    return next;
  };
}

type Section = Record<string, unknown>;

/** `log.level`, `handlers` …: the keys whose values differ. */
function changedKeys(before: ConfigFile, after: ConfigFile): string[] {
  return Object.keys({ ...before, ...after }).flatMap((section) => {
    const [old, now] = [before, after].map((file) => (file as Section)[section]);
    if (isDeepStrictEqual(old, now)) return [];
    if (!isSection(old) || !isSection(now)) return [section];
    return Object.keys({ ...old, ...now })
      .filter((key) => !isDeepStrictEqual(old[key], now[key]))
      .map((key) => `${section}.${key}`);
  });
}

function withKeys(before: ConfigFile, after: ConfigFile, keys: readonly string[]): ConfigFile {
  const merged = structuredClone(before) as Section;
  for (const path of keys) {
    const [section = '', key] = path.split('.');
    const value = (after as Section)[section];
    if (key === undefined) merged[section] = value;
    else Object.assign(merged[section] as Section, { [key]: (value as Section)[key] });
  }
  return merged as ConfigFile;
}

function isSection(value: unknown): value is Section {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
