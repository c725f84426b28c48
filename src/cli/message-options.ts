import { InvalidArgumentError, Option } from 'commander';

import { parseTime } from '../units.js';
import type { Subcommand } from './help.js';
import { type Ack, acks, type MessageKind } from '../message-envelope.js';
import { duration, property } from './values.js';

/** What `addMessageOptions` leaves in a command's flags. */
export interface MessageFlags {
  data?: string;
  dataFile?: string;
  stdin?: boolean;
  lines?: boolean;
  ndjson?: boolean;
  onError?: 'stop' | 'continue';
  contentType?: string;
  contentEncoding?: string;
  prop?: Record<string, string>;
  messageId?: string;
  correlationId?: string;
  userId?: string;
  /** Milliseconds from the moment a message is made. */
  expires?: number;
  /** Telemetry only, RFC 3339. */
  creationTime?: string;
  component?: string;
  outputName?: string;
  /** Commands only. */
  ack?: Ack;
}

/** Options for what is sent, the same for telemetry and commands as far as both have them. */
export function addMessageOptions(command: Subcommand, kind: MessageKind): Subcommand {
  const body = (option: Option): Option => option.helpGroup('Body, one of:');
  const message = (option: Option): Option => option.helpGroup('Message:');
  command
    .addOption(body(new Option('--data <text>', 'one message')))
    .addOption(
      body(new Option('--data-file <file>', 'one message, the bytes of the file; "-" is standard input')),
    )
    .addOption(body(new Option('--stdin', 'one message, the bytes of standard input')))
    .addOption(body(new Option('--lines', 'one message for each line of standard input')))
    .addOption(body(new Option('--ndjson', 'one message for each line of JSON; see help ndjson')))
    .addOption(
      message(
        new Option('-T, --content-type <type>', 'MIME type (default application/json when the body is JSON)'),
      ),
    )
    .addOption(message(new Option('--content-encoding <name>', 'character set (default utf-8 for text)')))
    .addOption(
      message(
        new Option('-P, --prop <name=value>', 'application property, as often as needed').argParser(property),
      ),
    )
    .addOption(message(new Option('--message-id <id>', 'with lines it makes ID-1, ID-2 … (default a ULID)')))
    .addOption(message(new Option('--correlation-id <id>', 'what this message is about')))
    .addOption(message(new Option('--user-id <id>', 'who it comes from')));
  if (kind === 'telemetry') {
    command
      .addOption(message(new Option('--creation-time <time>', 'when it was measured').argParser(timestamp)))
      .addOption(message(new Option('--component <name>', 'Plug and Play component')))
      .addOption(message(new Option('--output-name <name>', 'output of a module')));
  } else {
    command.addOption(
      message(new Option('--ack <outcomes>', 'outcomes to give feedback on').choices(acks).default('none')),
    );
  }
  return command
    .addOption(message(new Option('--expires <dur>', 'worthless after this long').argParser(duration)))
    .addOption(
      message(
        new Option('--on-error <do>', 'with lines, after one that failed; they go on by default').choices([
          'stop',
          'continue',
        ]),
      ),
    );
}

function timestamp(text: string): string {
  try {
    return new Date(parseTime(text, Date.now())).toISOString();
  } catch (error) {
    if (error instanceof SyntaxError) throw new InvalidArgumentError(error.message);
    throw error;
  }
}
