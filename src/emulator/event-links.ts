import type { Route } from './addresses.js';
import { hubError } from './errors.js';
import type { HubError } from './errors.js';
import type { FaultAction } from './faults.js';
import type { Hub } from './hub.js';
import type { LinkContext, Outlet, Transfer } from './links.js';
import { text, toWire } from './message.js';
import type { WireMessage } from './message.js';
import { parseSelector } from './partitions.js';
import type { Partition, StartPosition, StoredEvent } from './partitions.js';
import { answer } from './telemetry.js';
import { encode, int, long, rhea, timestamp } from './wire.js';

type PartitionRoute = Extract<Route, { kind: 'partition' }>;

/** Five readers at most share a partition in a consumer group ("Event processor host"). */
const readersPerGroup = 5;

/** Who reads which partition for which consumer group, so that an owner can push the others out. */
export class Readers {
  readonly #readers = new Map<string, Set<LinkContext>>();

  /** Why this reader may not come in, if it may not; those whom it pushes out are detached. */
  admit(context: LinkContext, now: number): HubError | undefined {
    const others = [...(this.#readers.get(groupKey(context)) ?? [])];
    const level = ownerLevel(context);
    const highest = Math.max(-1, ...others.map((other) => ownerLevel(other)));
    if (level < highest) {
      const why =
        level < 0
          ? `At least one receiver for the endpoint is created with epoch of '${highest}', and so non-epoch receiver is not allowed.`
          : `Receiver with epoch '${level}' may not replace one with epoch '${highest}'.`;
      return hubError('amqp:link:stolen', 409_002, why, now);
    }
    if (level < 0 && others.length >= readersPerGroup) {
      const why = `${readersPerGroup} receivers read this partition for this consumer group; there may be no more`;
      return hubError('amqp:resource-limit-exceeded', 403_002, why, now);
    }
    if (level >= 0) {
      const why = `New receiver with higher epoch of '${level}' is created hence current receiver is getting disconnected.`;
      for (const other of others)
        other.connection.detach(other, hubError('amqp:link:stolen', 409_002, why, now));
    }
    return undefined;
  }

  enter(context: LinkContext): () => void {
    const key = groupKey(context);
    const group = this.#readers.get(key) ?? new Set();
    this.#readers.set(key, group.add(context));
    return () => {
      group.delete(context);
      if (group.size === 0) this.#readers.delete(key);
    };
  }
}

function groupKey({ route }: LinkContext): string {
  const { group, partition } = route as PartitionRoute;
  return `${group.toLowerCase()}/${partition}`;
}

/** -1 for a reader that does not claim to be the owner. */
function ownerLevel({ properties }: LinkContext): number {
  const epoch = properties['com.microsoft:epoch'];
  return epoch === undefined || epoch === null ? -1 : Number(epoch);
}

/** Why a partition may not be read, if it may not; `start` is where the reader begins. */
export function partitionObjection(context: LinkContext, hub: Hub): HubError | undefined {
  const { eventHub, partition } = context.route as PartitionRoute;
  if (eventHub.toLowerCase() !== hub.settings.eventHubName.toLowerCase()) {
    return hubError('amqp:not-found', 404_006, `there is no event hub "${eventHub}"`, hub.now());
  }
  if (hub.partitions.all[Number(partition)]?.id !== partition) {
    const why = `there is no partition "${partition}"`;
    return hubError('com.microsoft:argument-out-of-range', 400_004, why, hub.now());
  }
  const selector = selectorOf(context);
  if (selector !== undefined && parseSelector(selector) === undefined) {
    return hubError('amqp:invalid-field', 400_004, `the filter "${selector}" cannot be read`, hub.now());
  }
  return hub.readers.admit(context, hub.now());
}

/** A partition, from where the filter says, as fast as credit comes. */
export function openPartition(outlet: Outlet, hub: Hub): void {
  const { context } = outlet;
  const partition = hub.partitions.all[Number((context.route as PartitionRoute).partition)];
  if (partition === undefined) return;
  const start = parseSelector(selectorOf(context) ?? '') ?? fromTheBeginning;
  let position = partition.find(start);
  const withMetrics = wants(context, 'com.microsoft:enable-receiver-runtime-metric');
  const pump = (): void => {
    while (outlet.room > 0) {
      const event = partition.read(position);
      if (event === undefined) return;
      position = event.sequenceNumber + 1;
      const bytes = withMetrics ? encode(withRuntimeMetrics(event, partition, hub)) : encoded(event, hub);
      outlet.sendEncoded(bytes);
    }
  };
  const leave = hub.readers.enter(context);
  const unwatch = partition.watch(pump);
  outlet.onRoom = pump;
  outlet.onClosed = () => {
    unwatch();
    leave();
  };
}

const fromTheBeginning: StartPosition = { from: 'offset', value: -1, inclusive: false };

function selectorOf({ filter }: LinkContext): string | undefined {
  const selector = filter['apache.org:selector-filter:string'];
  if (typeof selector === 'object' && selector !== null && 'value' in selector) return String(selector.value);
  return text(selector);
}

function wants({ desiredCapabilities }: LinkContext, capability: string): boolean {
  return desiredCapabilities.includes(capability);
}

function encoded(event: StoredEvent, hub: Hub): Buffer {
  return (event.encoded ??= encode(eventMessage(event, hub)));
}

/** An event as Event Hubs gives it: what the device sent, and what the hub stamped on it. */
function eventMessage(
  { message, sequenceNumber, offset, enqueuedAt, deviceId }: StoredEvent,
  _hub: Hub,
): object {
  return {
    ...toWire(message),
    message_annotations: {
      ...message.annotations,
      'iothub-enqueuedtime': timestamp(enqueuedAt),
      'x-opt-sequence-number': long(sequenceNumber),
      'x-opt-offset': String(offset),
      'x-opt-enqueued-time': timestamp(enqueuedAt),
      'x-opt-partition-key': deviceId,
    },
  };
}

function withRuntimeMetrics(event: StoredEvent, partition: Partition, hub: Hub): object {
  const { last } = partition;
  return {
    ...eventMessage(event, hub),
    delivery_annotations: {
      last_enqueued_sequence_number: long(partition.next - 1),
      last_enqueued_offset: String(last?.offset ?? -1),
      last_enqueued_time_utc: timestamp(last?.enqueuedAt ?? 0),
      runtime_info_retrieval_time_utc: timestamp(hub.now()),
    },
  };
}

/** `$management`: what the event hub and its partitions are. */
export function openManagement(
  context: LinkContext,
  hub: Hub,
): (transfer: Transfer, fault?: FaultAction) => void {
  return (transfer, fault) => {
    answer(transfer, { outcome: 'accepted' }, fault, hub);
    if (fault?.act === 'say-nothing') return;
    const request = transfer.content as WireMessage;
    const { status, description, body } = read(request.application_properties ?? {}, hub);
    setImmediate(() => {
      context.connection.siblingOf(context)?.post({
        correlation_id: request.message_id,
        application_properties: { 'status-code': int(status), 'status-description': description },
        body: body ?? null,
      });
    });
  };
}

interface ManagementAnswer {
  status: number;
  description: string;
  body?: object;
}

function read(fields: Record<string, unknown>, hub: Hub): ManagementAnswer {
  const { eventHubName } = hub.settings;
  if (text(fields['operation'])?.toUpperCase() !== 'READ')
    return { status: 400, description: 'operation must be READ' };
  const name = text(fields['name']) ?? '';
  if (name.toLowerCase() !== eventHubName.toLowerCase()) {
    return { status: 404, description: `there is no event hub "${name}"` };
  }
  switch (text(fields['type'])) {
    case 'com.microsoft:eventhub':
      return { status: 200, description: 'OK', body: eventHubBody(eventHubName, hub) };
    case 'com.microsoft:partition': {
      const id = String((fields['partition'] as string | number | undefined) ?? '');
      const partition = hub.partitions.all.find((each) => each.id === id);
      if (partition === undefined) return { status: 404, description: `there is no partition "${id}"` };
      return { status: 200, description: 'OK', body: partitionBody(eventHubName, partition) };
    }
    default:
      return { status: 400, description: 'type must be com.microsoft:eventhub or com.microsoft:partition' };
  }
}

function eventHubBody(name: string, { partitions }: Hub): object {
  const ids = partitions.all.map(({ id }) => id);
  return {
    name,
    type: 'com.microsoft:eventhub',
    created_at: timestamp(partitions.createdAt),
    partition_count: int(ids.length),
    // 0xa1: a string of up to 255 bytes.
    partition_ids: rhea.types.wrap_array(ids, 0xa1, undefined),
    georeplication_factor: int(1),
  };
}

function partitionBody(name: string, partition: Partition): object {
  const { last } = partition;
  return {
    name,
    type: 'com.microsoft:partition',
    partition: partition.id,
    begin_sequence_number: long(partition.first),
    last_enqueued_sequence_number: long(partition.next - 1),
    last_enqueued_offset: String(last?.offset ?? -1),
    last_enqueued_time_utc: timestamp(last?.enqueuedAt ?? 0),
    is_partition_empty: last === undefined,
  };
}

/** The hub's own `messages/events` sends readers to the Event Hubs endpoint, which is here as well. */
export function redirect(rest: string, host: string, port: number, hub: Hub): HubError {
  const address = `amqps://${host}:${port}/${hub.settings.eventHubName}/${rest}`;
  return {
    condition: 'amqp:link:redirect',
    description: '',
    info: { hostname: host, 'network-host': host, port: int(port), address },
  };
}
