import * as v from 'valibot';

import { parseExitRange } from '../handlers/exit-table.js';
import { parseDuration, parseSize } from '../units.js';

/**
 * The configuration file as people write it: names, types, defaults and the words that editors show. The JSON Schema
 * in `config/agent.schema.json` is made from it, and `config/agent.example.toml` has every key with its default.
 */

/** A duration as text that lies between two others; milliseconds when it has been read. */
function duration(description: string, least: string, most: string) {
  return quantity(description, [least, most], {
    form: 'write a duration as "500ms", "30s", "5m" or "1h30m"',
    parse: parseDuration,
  });
}

/** A size as text that lies between two others; bytes when it has been read. */
function size(description: string, least: string, most: string) {
  return quantity(description, [least, most], {
    form: 'write a size as "512", "64KB", "256KiB" or "1MiB"',
    parse: parseSize,
  });
}

function quantity(
  description: string,
  [least, most]: [string, string],
  { form, parse }: { form: string; parse: (text: string) => number },
) {
  const [lowest, highest] = [parse(least), parse(most)];
  return v.pipe(
    v.string(form),
    v.description(description),
    v.rawTransform<string, number>(({ dataset, addIssue, NEVER }) => {
      try {
        const value = parse(dataset.value);
        if (value >= lowest && value <= highest) return value;
        addIssue({ message: `it has to lie between ${least} and ${most}` });
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        addIssue({ message: error.message });
      }
      return NEVER;
    }),
  );
}

/** The hub locks a command for 60 s; killing a handler takes up to 5 s of them, and the settlement needs some. */
const handlerTimeout = (description: string) => duration(description, '100ms', '50s');

const secret = v.union(
  [
    v.pipe(v.string(), v.description('The text itself; keep the file from others then')),
    v.strictObject({ env: v.pipe(v.string(), v.description('Environment variable')) }),
    v.strictObject({ file: v.pipe(v.string(), v.description('Path of a file')) }),
    v.strictObject({ credential: v.pipe(v.string(), v.description('systemd credential (LoadCredential=)')) }),
  ],
  'write { credential = "NAME" }, { file = "PATH" }, { env = "NAME" } or the text itself',
);

const hub = v.strictObject({
  connection_string: v.optional(
    v.pipe(secret, v.description('Who the device is. Absent: as for every command, from the environment')),
  ),
  ca: v.optional(v.pipe(v.string(), v.description('PEM file of further authorities to trust'))),
  token_ttl: v.optional(duration('Life of a token; it is renewed before', '1m', '365d'), '1h'),
  idle_timeout: v.optional(duration('Silence after which a connection counts as dead', '1s', '4m'), '10s'),
});

const order = v.union(
  [v.picklist(['handler', 'device', 'none']), v.strictObject({ key: v.string() })],
  'write "handler", "device", "none" or { key = "PROPERTY" }',
);

const commands = v.strictObject({
  concurrency: v.optional(
    v.pipe(
      v.number('write a whole number'),
      v.integer('write a whole number'),
      v.minValue(1, 'it has to be at least 1'),
      v.maxValue(1000, 'it has to be at most 1000'),
      v.description('Commands in hand at once; the hub holds the others'),
    ),
    4,
  ),
  order: v.optional(
    v.pipe(
      order,
      v.description('What happens one after the other: each handler, each device, each value of a property'),
    ),
    'handler',
  ),
  timeout: v.optional(handlerTimeout('How long a handler may take; the hub waits for 60 s'), '45s'),
  unmatched: v.optional(
    v.pipe(
      v.picklist(['reject', 'release'], 'write "reject" or "release"'),
      v.description('Outcome of a command that no handler takes'),
    ),
    'reject',
  ),
});

const texts = v.union([v.string(), v.array(v.string())], 'write a text or a list of texts');

const match = v.strictObject({
  property: v.optional(v.pipe(v.record(v.string(), texts), v.description('Application properties by name'))),
  content_type: v.optional(texts),
  message_id: v.optional(texts),
  body: v.optional(
    v.pipe(
      v.record(
        v.pipe(v.string(), v.regex(/^(\/|$)/, 'a JSON pointer begins with "/"')),
        v.union([texts, v.number(), v.boolean()], 'write a text, a list of texts, a number or true or false'),
      ),
      v.description('Values in a JSON body, by JSON pointer'),
    ),
  ),
});

const handler = v.strictObject({
  name: v.optional(
    v.pipe(v.string(), v.minLength(1), v.description('For the log; the name of the program if absent')),
  ),
  on: v.optional(v.picklist(['command'], 'write "command"'), 'command'),
  match: v.optional(
    v.pipe(
      match,
      v.description(
        'Which commands it takes, all of this must hold; * and ? stand for any text and character',
      ),
    ),
    {},
  ),
  exec: v.pipe(
    v.array(
      v.string('write the program and its arguments as texts'),
      'write a list: ["/path/of/program", "argument"]',
    ),
    v.minLength(1, 'the program is missing'),
    v.description('The program and its arguments; no shell reads them'),
  ),
  timeout: v.optional(handlerTimeout('Absent: commands.timeout')),
  order: v.optional(v.pipe(order, v.description('Absent: commands.order'))),
  exit: v.optional(
    v.pipe(
      v.record(
        v.pipe(
          v.string(),
          v.check(
            (text) => parseExitRange(text) !== undefined,
            'an exit code is 0 to 255, or a range as "10-19"',
          ),
        ),
        v.picklist(['accept', 'reject', 'release'], 'write "accept", "reject" or "release"'),
      ),
      v.description('Outcome by exit code where it differs from: 0 accept, 75 release, any other reject'),
    ),
    {},
  ),
  on_timeout: v.optional(
    v.pipe(
      v.picklist(['release', 'reject'], 'write "release" or "reject"'),
      v.description('Outcome when it took too long; after three releases it is rejected'),
    ),
    'release',
  ),
});

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

const shutdown = v.strictObject({
  drain_timeout: v.optional(
    duration('How long running handlers may take to end when the agent stops', '0s', '10m'),
    '20s',
  ),
});

export const configSchema = v.strictObject({
  $schema: v.optional(v.pipe(v.string(), v.description('For editors, in JSON'))),
  hub: v.optional(v.pipe(hub, v.description('The hub, and who we are there')), {}),
  commands: v.optional(v.pipe(commands, v.description('Cloud-to-device commands')), {}),
  handlers: v.optional(
    v.pipe(
      v.array(handler, 'write each handler under [[handlers]]'),
      v.description('Programs for commands; the first that matches takes one'),
    ),
    [],
  ),
  spool: v.optional(v.pipe(spool, v.description('Telemetry that waits for the hub')), {}),
  log: v.optional(
    v.pipe(log, v.description('What is said on standard error; flags and the environment win')),
    {},
  ),
  shutdown: v.optional(v.pipe(shutdown, v.description('What happens on SIGTERM')), {}),
});

export type ConfigFile = v.InferOutput<typeof configSchema>;
