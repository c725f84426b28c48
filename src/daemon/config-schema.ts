import * as v from 'valibot';

import { commandsSchema, handlerSchema, inboxSchema } from './config-handlers-schema.js';
import { hubSchema } from './config-hub.js';
import { duration, listenAddress, size } from './config-values.js';

/**
 * The configuration file as people write it: names, types, defaults and the words that editors show. The JSON Schema
 * in `config/agent.schema.json` is made from it, and `config/agent.example.toml` has every key with its default.
 */

const spool = v.strictObject({
  directory: v.optional(
    v.pipe(
      v.string(),
      v.minLength(1, 'the path is empty'),
      v.description(
        'Where telemetry waits for the hub. Absent: a directory of the device among the state of this program',
      ),
    ),
  ),
  max_size: v.optional(size('What waiting telemetry may take on disk', '1MiB', '1024GiB'), '256MiB'),
  max_age: v.optional(duration('Older telemetry is dropped', '1s', '3650d'), '7d'),
  when_full: v.optional(
    v.pipe(
      v.picklist(['reject', 'drop_oldest', 'drop_newest'], 'write "reject", "drop_oldest" or "drop_newest"'),
      v.description('What happens to new telemetry that does not fit'),
    ),
    'reject',
  ),
});

const control = v.strictObject({
  socket: v.optional(
    v.pipe(
      v.string(),
      v.description(
        'Unix socket for status, telemetry and reload; "" for none. Absent: in the runtime directory of systemd or the user',
      ),
    ),
  ),
});

const log = v.strictObject({
  level: v.optional(
    v.picklist(
      ['error', 'warn', 'info', 'debug', 'trace'],
      'write "error", "warn", "info", "debug" or "trace"',
    ),
    'info',
  ),
  format: v.optional(
    v.picklist(['auto', 'text', 'json', 'journal'], 'write "auto", "text", "json" or "journal"'),
    'auto',
  ),
});

const metrics = v.strictObject({
  listen: v.optional(
    listenAddress(
      'Address and port of /metrics, /healthz and /readyz, as "127.0.0.1:9464"; "" for none. Nobody is asked who they are',
    ),
    '',
  ),
});

const shutdown = v.strictObject({
  drain_timeout: v.optional(
    duration('How long running handlers may take to end when the agent stops', '0s', '10m'),
    '20s',
  ),
});

export const configSchema = v.strictObject({
  $schema: v.optional(v.pipe(v.string(), v.description('For editors, in JSON'))),
  hub: v.optional(v.pipe(hubSchema, v.description('The hub, and who we are there')), {}),
  commands: v.optional(v.pipe(commandsSchema, v.description('Cloud-to-device commands')), {}),
  inbox: v.optional(v.pipe(inboxSchema, v.description('Commands of handlers with settle = "inbox"')), {}),
  handlers: v.optional(
    v.pipe(
      v.array(handlerSchema, 'write each handler under [[handlers]]'),
      v.description('Programs and modules; the first that matches takes an event'),
    ),
    [],
  ),
  spool: v.optional(v.pipe(spool, v.description('Telemetry that waits for the hub')), {}),
  control: v.optional(v.pipe(control, v.description('How other programs speak to the agent')), {}),
  metrics: v.optional(
    v.pipe(metrics, v.description('HTTP for Prometheus, and whether the agent is well')),
    {},
  ),
  log: v.optional(
    v.pipe(log, v.description('What is said on standard error; flags and the environment win')),
    {},
  ),
  shutdown: v.optional(v.pipe(shutdown, v.description('What happens on SIGTERM')), {}),
});

export type ConfigFile = v.InferOutput<typeof configSchema>;
