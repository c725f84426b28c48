import type { HubEvent } from '../../amqp/event-message.js';
import { formatSize } from '../../units.js';
import { visible } from '../../visible.js';
import { jsonOnOneLine } from '../json-text.js';
import { columns, type Printable } from '../output.js';

interface Count {
  events: number;
  /** Of the bodies. */
  bytes: number;
  /** Milliseconds since the epoch, as the hub took them. */
  first: number;
  last: number;
}

/** How many events each device sent, and how fast. */
export class DeviceCounts {
  readonly #counts = new Map<string, Count>();

  add({ deviceId = '-', body, enqueuedAt }: HubEvent): void {
    const count = this.#counts.get(deviceId);
    if (count === undefined) {
      this.#counts.set(deviceId, { events: 1, bytes: body.length, first: enqueuedAt, last: enqueuedAt });
      return;
    }
    count.events++;
    count.bytes += body.length;
    count.first = Math.min(count.first, enqueuedAt);
    count.last = Math.max(count.last, enqueuedAt);
  }

  /** One line for each device, the busiest first. */
  lines(): Printable[] {
    return [...this.#counts]
      .sort(([, a], [, b]) => b.events - a.events)
      .map(([id, count]) => lineOf(id, count));
  }
}

/** `{"deviceId":"dev1","events":60,"bytes":1200,"perSecond":1,"first":"…","last":"…"}` */
function lineOf(deviceId: string, { events, bytes, first, last }: Count): Printable {
  // From the first to the last there is one interval less than there are events.
  const perSecond = last === first ? undefined : Math.round(((events - 1) * 100_000) / (last - first)) / 100;
  return {
    json: () => {
      const [from, to] = [first, last].map((time) => new Date(time).toISOString());
      return jsonOnOneLine(JSON.stringify({ deviceId, events, bytes, perSecond, first: from, last: to }));
    },
    text: ({ columns: limit, time }) =>
      columns(
        [
          visible(deviceId),
          String(events),
          formatSize(bytes),
          perSecond === undefined ? '-' : `${String(perSecond)}/s`,
          time(last),
        ],
        [24, 8, 9, 9],
        limit,
      ),
  };
}
