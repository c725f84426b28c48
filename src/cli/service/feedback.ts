import type { ServiceOptions } from '../../service/client.js';
import { addEndingOptions, type EndingFlags } from '../ending-options.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  addTimeoutOption,
  readServiceIdentity,
  type ConnectionFlags,
  type IdentityFlags,
  type TimeoutFlags,
} from '../identity-options.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';
import { addOutputOptions, createPrinter, type OutputFlags } from '../output.js';

export interface FollowFlags
  extends IdentityFlags, ConnectionFlags, TimeoutFlags, EndingFlags, OutputFlags, LogFlags {}

export interface FeedbackFlags extends FollowFlags {
  device?: string;
  until?: string;
}

/** `iothub-service feedback`: what became of commands whose senders asked to be told. */
export function feedbackCommand(io: Io): Subcommand {
  const command = new Subcommand('feedback')
    .description(
      'Print what became of commands that were sent with --ack. All who read feedback share one queue: what one ' +
        'has printed no other gets.',
    )
    .examples(
      'iothub-service feedback --idle 30s',
      'iothub-service feedback --until c1 -o json | jq -r .statusCode',
    )
    .exits('ok', ['unavailable', 'unreachable'], 'refused')
    .option('--device <id>', 'only of this device; batches with others alone are left to other readers')
    .option('--until <id>', 'stop behind the feedback on the command with this message id');
  addFollowOptions(command);
  return command.action(async (flags: FeedbackFlags) => {
    const { printFeedback } = await import('./print-feedback.js');
    await withHub(io, flags, (hub) => printFeedback(io, hub, { flags, printer: createPrinter(io, flags) }));
  });
}

/** `iothub-service notifications`: files that devices have uploaded. */
export function notificationsCommand(io: Io): Subcommand {
  const command = new Subcommand('notifications')
    .description(
      'Print the files that devices upload, each once: it is taken off the queue when its line is out.',
    )
    .examples('iothub-service notifications -o json | jq -r .blobUri')
    .exits('ok', ['unavailable', 'unreachable'], 'refused');
  addFollowOptions(command);
  return command.action(async (flags: FollowFlags) => {
    const { printNotifications } = await import('./print-feedback.js');
    await withHub(io, flags, (hub) =>
      printNotifications(io, hub, { flags, printer: createPrinter(io, flags) }),
    );
  });
}

function addFollowOptions(command: Subcommand): void {
  addEndingOptions(command);
  addOutputOptions(command, 'service');
  addIdentityOptions(command, 'service');
  addConnectionOptions(command, 'service');
  addTimeoutOption(command);
  addLogOptions(command, 'service');
}

async function withHub(
  io: Io,
  flags: FollowFlags,
  work: (hub: ServiceOptions) => Promise<void>,
): Promise<void> {
  const identity = await readServiceIdentity(io, flags);
  const { serviceHub } = await import('./hub.js');
  const log = await openLog(io, flags, 'service', 'warn');
  try {
    await work(await serviceHub(io, identity, { ...flags, log }));
  } finally {
    await log.flush();
  }
}
