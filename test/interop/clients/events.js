import { EventHubConsumerClient } from '@azure/event-hubs';

import { serve, tell } from './rpc.js';

let client;
let subscription;

serve({
  open(connectionString, group = '$Default') {
    client = new EventHubConsumerClient(group, connectionString, { retryOptions: { maxRetries: 0 } });
  },
  async properties() {
    const { name, partitionIds } = await client.getEventHubProperties();
    return { name, partitionIds };
  },
  async partition(id) {
    return await client.getPartitionProperties(id);
  },
  subscribe(startPosition, { ownerLevel, partition, metrics = false } = {}) {
    const handlers = {
      processEvents(events, { partitionId, lastEnqueuedEventProperties }) {
        for (const event of events) {
          tell('event', {
            partitionId,
            body: event.body,
            properties: event.properties,
            systemProperties: event.systemProperties,
            sequenceNumber: event.sequenceNumber,
            offset: event.offset,
            enqueuedAt: event.enqueuedTimeUtc.getTime(),
            messageId: String(event.messageId),
            last: lastEnqueuedEventProperties?.sequenceNumber,
          });
        }
      },
      processError(error) {
        tell('failed', { name: error.name, code: error.code, message: error.message });
      },
    };
    const options = {
      startPosition,
      ownerLevel,
      trackLastEnqueuedEventProperties: metrics,
      maxBatchSize: 100,
    };
    subscription =
      partition === undefined
        ? client.subscribe(handlers, options)
        : client.subscribe(partition, handlers, options);
  },
  async close() {
    await subscription?.close();
    await client.close();
  },
});
