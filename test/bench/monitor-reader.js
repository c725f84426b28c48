/** One reader of `monitor.ts`: `library EVENTS` or `sdk EVENTS`. Says when it begins and when it has all of them. */
import { readFileSync } from 'node:fs';

const [kind, count] = process.argv.slice(2);
const events = Number(count);
const connectionString = process.env.IOTHUB_EVENTHUB_CONNECTION_STRING;
const next = new Map();
let seen = 0;

await { library, sdk }[kind]();
process.stdout.write('end\n');
process.exit();

async function library() {
  const { eventHubOf, openMonitor, parseEventHubConnectionString, silentLog, systemClock } =
    await import('../../dist/index.js');
  const trust = { extraCa: readFileSync(process.env.IOTHUB_SERVICE_CA, 'utf8') };
  const string = parseEventHubConnectionString(connectionString);
  const eventHub = eventHubOf(string, { trust, clock: systemClock, log: silentLog });
  process.stdout.write('begin\n');
  for await (const event of openMonitor({ eventHub, from: { at: 'start' } }, new AbortController().signal)) {
    take(event.partition, event.sequenceNumber);
    if (seen === events) break;
  }
}

async function sdk() {
  const { EventHubConsumerClient } = await import('@azure/event-hubs');
  const client = new EventHubConsumerClient('$Default', connectionString);
  process.stdout.write('begin\n');
  await new Promise((resolve, reject) => {
    client.subscribe(
      {
        async processEvents(batch, { partitionId }) {
          for (const { sequenceNumber } of batch) take(partitionId, sequenceNumber);
          if (seen === events) resolve();
        },
        async processError(error) {
          reject(error);
        },
      },
      { startPosition: { offset: '-1' }, maxBatchSize: 300 },
    );
  });
}

/** Each partition in its order, and none missing. */
function take(partition, sequenceNumber) {
  const expected = next.get(partition) ?? 0;
  if (sequenceNumber !== expected) throw new Error(`${partition}/${expected} is missing`);
  next.set(partition, expected + 1);
  seen++;
}
