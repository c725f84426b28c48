import * as v from 'valibot';

import { parseExitRange } from '../handlers/exit-table.js';
import { count, duration, growingDelay } from './config-values.js';

/** Commands, direct methods and twin changes, and who handles them: part of the configuration as people write it. */

const order = v.union(
  [v.picklist(['handler', 'device', 'none']), v.strictObject({ key: v.string() })],
  'write "handler", "device", "none" or { key = "PROPERTY" }',
);

const settle = v.picklist(['after', 'inbox'], 'write "after" or "inbox"');

const texts = v.union([v.string(), v.array(v.string())], 'write a text or a list of texts');

export const commandsSchema = v.strictObject({
  concurrency: v.optional(count('Commands in hand at once; the hub holds the others', 1, 1000), 4),
  order: v.optional(
    v.pipe(
      order,
      v.description('What happens one after the other: each handler, each device, each value of a property'),
    ),
    'handler',
  ),
  timeout: v.optional(duration('How long a handler may take; the hub waits for 60 s', '100ms', '50s'), '45s'),
  unmatched: v.optional(
    v.pipe(
      v.picklist(['reject', 'release'], 'write "reject" or "release"'),
      v.description('Outcome of a command that no handler takes'),
    ),
    'reject',
  ),
  settle: v.optional(
    v.pipe(
      settle,
      v.description(
        'When the hub hears of it: after the handler, or once the command is on disk, to be run later',
      ),
    ),
    'after',
  ),
  release_delay: v.optional(
    growingDelay(
      'How long a released command is kept before the hub may deliver it again: the first time, and at most',
      '0s',
      '55s',
    ),
    '5s..50s',
  ),
  dedupe: v.optional(
    duration('How long outcomes are remembered for commands that are delivered again', '1m', '30d'),
    '24h',
  ),
  handlers_dir: v.optional(
    v.pipe(
      texts,
      v.description(
        'Directories with command.d, method.d and twin.d, whose files are handlers by their names; tried after [[handlers]]',
      ),
    ),
    [],
  ),
});

const attempts = count('Runs that end in "later" or fail before a command of the inbox is given up', 1, 1000);
const age = duration('A command that waited longer in the inbox is given up', '1m', '365d');

export const inboxSchema = v.strictObject({
  max_attempts: v.optional(attempts, 5),
  max_age: v.optional(age, '7d'),
  retry_delay: v.optional(
    growingDelay('How long it waits before it is tried again: the first time, and at most', '100ms', '1d'),
    '5s..10m',
  ),
  max_waiting: v.optional(count('So many may wait; what comes then stays with the hub', 1, 1_000_000), 1000),
  max_dead: v.optional(count('So many of those that were given up are kept', 0, 1_000_000), 1000),
});

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
  method: v.optional(v.pipe(texts, v.description('Name of a direct method'))),
  path: v.optional(v.pipe(texts, v.description('Name of a desired property: "interval", "fan.speed"'))),
  device_id: v.optional(texts),
});

const status = v.pipe(v.number(), v.integer(), v.minValue(100), v.maxValue(599));

const handlerTable = v.strictObject({
  name: v.optional(
    v.pipe(v.string(), v.minLength(1), v.description('For the log; the name of its file if absent')),
  ),
  on: v.optional(
    v.pipe(
      v.picklist(['command', 'method', 'twin'], 'write "command", "method" or "twin"'),
      v.description('A cloud-to-device command, a direct method, or a change of a desired property'),
    ),
    'command',
  ),
  match: v.optional(
    v.pipe(
      match,
      v.description('Which it takes; all of this must hold; * and ? stand for any text and character'),
    ),
    {},
  ),
  exec: v.optional(
    v.pipe(
      v.array(
        v.string('write the program and its arguments as texts'),
        'write a list: ["/path/of/program", "argument"]',
      ),
      v.minLength(1, 'the program is missing'),
      v.description('The program and its arguments; no shell reads them'),
    ),
  ),
  mode: v.optional(
    v.pipe(
      v.picklist(['program', 'stream'], 'write "program" or "stream"'),
      v.description('The program is started for each event, or lives on and gets them as lines of JSON'),
    ),
    'program',
  ),
  module: v.optional(
    v.pipe(v.string(), v.minLength(1), v.description('A JavaScript module, run inside the agent')),
  ),
  isolate: v.optional(
    v.pipe(
      v.boolean('write true or false'),
      v.description(
        'Whether the module runs in a process of its own, which is killed when it takes too long',
      ),
    ),
    false,
  ),
  cwd: v.optional(v.pipe(v.string(), v.minLength(1), v.description('Working directory of the program'))),
  timeout: v.optional(
    duration(
      'How long it may take. Absent: that of [commands], 1h with settle = "inbox", 30s for a method, 5m for a twin',
      '100ms',
      '7d',
    ),
  ),
  order: v.optional(v.pipe(order, v.description('Absent: that of [commands]'))),
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
        v.union(
          [v.picklist(['accept', 'reject', 'release']), status],
          'write "accept", "reject" or "release", or the status of a method or twin',
        ),
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
  ),
  after_crash: v.optional(
    v.pipe(
      v.picklist(['run', 'reject'], 'write "run" or "reject"'),
      v.description('What becomes of a command whose handler was running when the agent ended'),
    ),
  ),
  reply: v.optional(
    v.pipe(
      v.boolean('write true or false'),
      v.description(
        'Whether a final outcome goes out as telemetry, with what the handler printed or returned as its body',
      ),
    ),
  ),
  settle: v.optional(v.pipe(settle, v.description('Absent: that of [commands]'))),
  max_attempts: v.optional(attempts),
  max_age: v.optional(age),
});

export const handlerSchema = v.pipe(
  handlerTable,
  v.forward(
    v.partialCheck(
      [['exec'], ['module']],
      ({ exec, module }) => (exec === undefined) !== (module === undefined),
      'it needs either exec = ["PROGRAM"] or module = "FILE"',
    ),
    ['exec'],
  ),
);
