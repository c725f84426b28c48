import type { AskingSender } from '../amqp/asking.js';
import { encodeCommand } from '../amqp/messages.js';
import type { DeviceId, MessageFields, SendOutcome } from '../model.js';
import type { ServiceClient } from './client.js';

/** Which outcomes of a command its sender wants to hear of. */
export type Ack = 'none' | 'positive' | 'negative' | 'full';

/** A cloud-to-device message on its way to a device. */
export interface CommandToSend extends MessageFields {
  to: DeviceId;
  messageId: string;
  ack: Ack;
}

/** The sender link to `/messages/devicebound`, over which commands for any device go. */
export interface CommandSender {
  /** Resolves with the hub's disposition: accepted means queued for the device. */
  send(command: CommandToSend, signal: AbortSignal): Promise<SendOutcome>;
}

export async function openCommandSender(client: ServiceClient, signal: AbortSignal): Promise<CommandSender> {
  const sender: AskingSender = await client.asking.openSender(
    'command sender',
    '/messages/devicebound',
    signal,
  );
  return { send: (command, until) => sender.send(encodeCommand(command), until) };
}
