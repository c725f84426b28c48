import type { Hub } from './hub.js';
import type { HubMessage } from './message.js';
import { newLockToken } from './wire.js';

/** What the hub itself tells a service, in its queues below `/messages/serviceBound`. Such a message lives an hour. */
export const serviceBoundTtlMs = 3_600_000;

export function serviceBound(hub: Hub, queue: keyof typeof contentTypes, content: object): HubMessage {
  const { token } = newLockToken();
  return {
    id: token,
    messageId: token,
    userId: Buffer.from(hub.settings.hubName),
    to: `/messages/serviceBound/${queue}`,
    contentType: `application/vnd.microsoft.iothub.${contentTypes[queue]}.json`,
    contentEncoding: 'utf-8',
    properties: {},
    annotations: {},
    body: Buffer.from(JSON.stringify(content)),
  };
}

const contentTypes = { feedback: 'feedback', filenotifications: 'filenotification' } as const;
