import type { ServiceOptions } from '../../service/client.js';
import { followFeedback, type FeedbackRecord } from '../../service/feedback.js';
import { followNotifications, type FileNotification } from '../../service/notifications.js';
import { formatSize } from '../../units.js';
import { visible } from '../../visible.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { columns, type Printable, type Printer, type TextLook } from '../output.js';
import { Ending } from './ending.js';
import type { FeedbackFlags, FollowFlags } from './feedback.js';

/** Prints feedback as it comes. A batch is taken off the queue when its records are out. */
export async function printFeedback(
  io: Io,
  hub: ServiceOptions,
  { flags, printer }: { flags: FeedbackFlags; printer: Printer },
): Promise<void> {
  const { device, until } = flags;
  using ending = new Ending(io, flags);
  try {
    for await (const { records, settle } of followFeedback(hub, ending.until, ending.online)) {
      const wanted = records.filter(({ deviceId }) => device === undefined || deviceId === device);
      if (wanted.length === 0) {
        settle('release');
        continue;
      }
      ending.arrived();
      // A batch is taken off the queue as a whole, so it is printed to its end.
      let enough = false;
      for (const record of wanted) {
        await printer.print(feedbackLine(record));
        enough = ending.counted() || record.originalMessageId === until || enough;
      }
      await printed(io);
      settle('accept');
      if (enough) break;
    }
  } catch (error) {
    ending.settle(error);
  }
  io.stop.throwIfAborted();
}

/** Prints file notifications as they come, in the same way. */
export async function printNotifications(
  io: Io,
  hub: ServiceOptions,
  { flags, printer }: { flags: FollowFlags; printer: Printer },
): Promise<void> {
  using ending = new Ending(io, flags);
  try {
    for await (const { notification, settle } of followNotifications(hub, ending.until, ending.online)) {
      ending.arrived();
      await printer.print(notificationLine(notification));
      await printed(io);
      settle('accept');
      if (ending.counted()) break;
    }
  } catch (error) {
    ending.settle(error);
  }
  io.stop.throwIfAborted();
}

/** Throws when the reader may not have got what was printed: then it stays in the queue. */
async function printed(io: Io): Promise<void> {
  await io.stdout.flush();
  io.stdout.readerGone.throwIfAborted();
}

/** The record as the hub made it. */
function feedbackLine(record: FeedbackRecord): Printable {
  const { deviceId, originalMessageId, enqueuedTimeUtc, statusCode, description } = record;
  return {
    json: () => jsonOnOneLine(JSON.stringify(record)),
    text: (look) =>
      columns(
        [
          timeOf(enqueuedTimeUtc, look),
          ...[deviceId, statusCode, originalMessageId].map(visible),
          description === statusCode ? '' : visible(description),
        ],
        [23, 12, 21, 26],
        look.columns,
      ),
  };
}

function notificationLine(notification: FileNotification): Printable {
  const { deviceId, blobName, blobSizeInBytes, enqueuedTimeUtc } = notification;
  return {
    json: () => jsonOnOneLine(JSON.stringify(notification)),
    text: (look) =>
      columns(
        [timeOf(enqueuedTimeUtc, look), visible(deviceId), formatSize(blobSizeInBytes), visible(blobName)],
        [23, 12, 9],
        look.columns,
      ),
  };
}

function timeOf(text: string, { time }: TextLook): string {
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? visible(text) : time(ms);
}
