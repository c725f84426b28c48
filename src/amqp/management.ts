import { randomUUID } from 'node:crypto';

import type { Message } from 'rhea';

import { AgentError } from '../errors.js';
import { anyOf } from '../signals.js';
import type { Asking } from './asking.js';
import { fromCondition } from './errors.js';
import { asCount, asText, entries } from './messages.js';

/** `$management` of an event hub: what it is made of. */
export interface Management {
  partitionIds(signal: AbortSignal): Promise<string[]>;
  /** The newest event of a partition: who reads on from there gets what comes next. */
  last(partition: string, signal: AbortSignal): Promise<LastEvent>;
}

export interface LastEvent {
  /** `-1` when there is none. */
  offset: string;
  /** -1 when there never was one; it stays when the event is gone. */
  sequenceNumber: number;
}

/** Opens the two links over which an event hub answers questions about itself. */
export async function openManagement(
  asking: Asking,
  eventHub: string,
  signal: AbortSignal,
): Promise<Management> {
  const waiting = new Map<string, (answer: Message) => void>();
  const replyTo = randomUUID();
  const receiver = await asking.openReceiver(
    'management receiver',
    {
      source: '$management',
      target: replyTo,
      credit: 100,
      onMessage: (message, settle) => {
        settle('accept');
        receiver.addCredit(1);
        if (typeof message.correlation_id === 'string') waiting.get(message.correlation_id)?.(message);
      },
    },
    signal,
  );
  const sender = await asking.openSender('management sender', '$management', signal);

  return {
    async partitionIds(until) {
      const ids = (await read({ type: 'com.microsoft:eventhub' }, until)).get('partition_ids');
      if (Array.isArray(ids) && ids.length > 0) return ids.map(String);
      throw new AgentError('protocol', `the event hub ${eventHub} does not tell its partitions`);
    },
    async last(partition, until) {
      const facts = await read({ type: 'com.microsoft:partition', partition }, until);
      const offset =
        facts.get('is_partition_empty') === true ? '-1' : asText(facts.get('last_enqueued_offset'));
      if (offset !== undefined) {
        return { offset, sequenceNumber: asCount(facts.get('last_enqueued_sequence_number')) ?? -1 };
      }
      throw new AgentError(
        'protocol',
        `the event hub ${eventHub} does not tell where partition ${partition} ends`,
      );
    },
  };

  async function read(fields: Record<string, string>, until: AbortSignal): Promise<Map<string, unknown>> {
    const messageId = randomUUID();
    const answer = nextAnswer(messageId, until);
    answer.catch(() => undefined);
    await sender.send(
      {
        message_id: messageId,
        reply_to: replyTo,
        application_properties: { operation: 'READ', name: eventHub, ...fields },
        body: Buffer.from('[]'),
      },
      until,
    );
    return entries(answered(await answer, eventHub));
  }

  function nextAnswer(messageId: string, signal: AbortSignal): Promise<Message> {
    const until = anyOf(signal, asking.over);
    return new Promise<Message>((resolve, reject) => {
      waiting.set(messageId, resolve);
      const onAbort = () => {
        reject(until.reason as Error);
      };
      if (until.aborted) onAbort();
      else until.addEventListener('abort', onAbort);
    }).finally(() => {
      waiting.delete(messageId);
      until[Symbol.dispose]();
    });
  }
}

/** The body of an answer, or what went wrong. */
function answered({ application_properties: properties, body }: Message, eventHub: string): unknown {
  const answer = entries(properties);
  const status = asCount(answer.get('status-code')) ?? 0;
  if (status >= 200 && status < 300) return body;
  const description = asText(answer.get('status-description'));
  if (status === 404) {
    throw new AgentError('no-device', `there is no event hub "${eventHub}": ${description ?? 'not found'}`);
  }
  throw fromCondition({ condition: asText(answer.get('error-condition')), description });
}
