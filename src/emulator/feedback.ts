import type { Device } from './device.js';
import type { Hub } from './hub.js';
import { Mailbox } from './mailbox.js';
import type { DeadReason } from './mailbox.js';
import { ackOf } from './message.js';
import type { HubMessage } from './message.js';
import type { FeedbackRecord } from './record.js';
import { serviceBound, serviceBoundTtlMs } from './service-bound.js';

/** Most records in one feedback message ("Message feedback"). */
const recordsPerMessage = 64;

/** What became of commands whose senders asked to be told, gathered into messages for whoever reads feedback. */
export class Feedback {
  readonly mailbox: Mailbox<HubMessage>;
  readonly #hub: Hub;
  #gathered: FeedbackRecord[] = [];

  constructor(hub: Hub) {
    this.#hub = hub;
    this.mailbox = new Mailbox({ ...hub.settings.commands, capacity: Infinity }, hub.clock, () => {
      // Dead feedback tells nobody.
    });
  }

  /** Notes an end, if the command asked for this kind of end. */
  report(device: Device, command: HubMessage, end: 'Success' | DeadReason): void {
    const ack = ackOf(command);
    const asked = ack === 'full' || ack === (end === 'Success' ? 'positive' : 'negative');
    if (!asked) return;
    this.#gathered.push({
      originalMessageId: command.messageId ?? '',
      enqueuedTimeUtc: new Date(this.#hub.now()).toISOString(),
      statusCode: end,
      description: end,
      deviceId: device.deviceId,
      deviceGenerationId: device.generationId,
    });
    if (this.#gathered.length >= recordsPerMessage) this.#post();
    else if (this.#gathered.length === 1) {
      this.#hub.clock.at(this.#hub.now() + this.#hub.settings.feedbackBatchMs, () => {
        this.#post();
      });
    }
  }

  #post(): void {
    const records = this.#gathered.splice(0);
    if (records.length === 0) return;
    this.#hub.record.add({ event: 'feedback', records });
    const message = serviceBound(this.#hub, 'feedback', records);
    this.mailbox.enqueue(message, this.#hub.now() + serviceBoundTtlMs);
  }
}
