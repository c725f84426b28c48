import { bodyOf } from '../amqp/messages.js';
import { AgentError } from '../errors.js';
import type { ServiceClient, ServiceOptions } from './client.js';
import { follow } from './follow.js';

/** A file that a device has uploaded ("Upload files with IoT Hub", file upload notifications). */
export interface FileNotification {
  deviceId: string;
  blobUri: string;
  blobName: string;
  /** RFC 3339. */
  lastUpdatedTime: string;
  blobSizeInBytes: number;
  /** RFC 3339. */
  enqueuedTimeUtc: string;
}

/** A notification as it was delivered: the hub locks it for 60 s. */
export interface DeliveredNotification {
  notification: FileNotification;
  settle: (as: 'accept' | 'release') => void;
}

/** Notifications for as long as there is someone to read them, as `followFeedback` does for feedback. */
export async function* followNotifications(
  hub: ServiceOptions,
  signal: AbortSignal,
  onOnline?: () => void,
): AsyncGenerator<DeliveredNotification, never, undefined> {
  return yield* follow(hub, openNotifications, signal, onOnline);
}

async function openNotifications(
  client: ServiceClient,
  onNotification: (delivered: DeliveredNotification) => void,
  signal: AbortSignal,
): Promise<void> {
  const receiver = await client.asking.openReceiver(
    'notification receiver',
    {
      source: '/messages/serviceBound/filenotifications',
      credit: 1,
      onMessage: (message, settle) => {
        onNotification({
          notification: parseNotification(bodyOf(message)),
          settle: (as) => {
            settle(as);
            receiver.addCredit(1);
          },
        });
      },
    },
    signal,
  );
}

function parseNotification(body: Buffer): FileNotification {
  try {
    const fields = JSON.parse(body.toString('utf8')) as Partial<FileNotification>;
    return {
      deviceId: fields.deviceId ?? '',
      blobUri: fields.blobUri ?? '',
      blobName: fields.blobName ?? '',
      lastUpdatedTime: fields.lastUpdatedTime ?? '',
      blobSizeInBytes: fields.blobSizeInBytes ?? 0,
      enqueuedTimeUtc: fields.enqueuedTimeUtc ?? '',
    };
  } catch (cause) {
    throw new AgentError('protocol', 'the hub sent a notification that cannot be read', { cause });
  }
}
