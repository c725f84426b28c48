/** Where in a partition reading begins. */
export type EventPosition =
  /** With the oldest event that is kept. */
  | { at: 'start' }
  /** With the first event that the hub took at this time or later, milliseconds since the epoch. */
  | { at: 'time'; enqueuedAt: number }
  /** Behind this event; `-1` is before the first. */
  | { at: 'offset'; offset: string; sequenceNumber?: number | undefined };

/** The position as a filter of Event Hubs ("AMQP 1.0 in Event Hubs", selector filter). */
export function selectorOf(position: EventPosition): string {
  switch (position.at) {
    case 'start':
      return "amqp.annotation.x-opt-offset > '-1'";
    case 'time':
      // Event Hubs knows no `>=` for times in every version, and they are whole milliseconds.
      return `amqp.annotation.x-opt-enqueued-time > '${String(position.enqueuedAt - 1)}'`;
    case 'offset':
      return `amqp.annotation.x-opt-offset > '${position.offset}'`;
  }
}
