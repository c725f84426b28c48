import type { SenderLink } from './sender-link.js';

/** The sender link to `/devices/{id}/messages/events`. */
export type TelemetryLink = SenderLink;

/** The format of a transfer: one message, or a batch of encoded messages in data sections. */
export const messageFormat = { single: 0, batch: 0x8001_3700 } as const;
