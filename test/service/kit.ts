import { once } from 'node:events';

import { systemClock } from '../../src/clock.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import {
  parseEventHubConnectionString,
  parseServiceConnectionString,
} from '../../src/identity/connection-string.js';
import { serviceTokens } from '../../src/identity/token.js';
import { silentLog } from '../../src/log.js';
import type { HubEvent } from '../../src/amqp/event-message.js';
import type { ServiceOptions } from '../../src/service/client.js';
import { eventHubOf, type EventHub } from '../../src/service/event-hub.js';
import type { Monitor } from '../../src/service/monitor.js';
import { encode, endpointOf, message, openSession } from '../amqp/hub.js';

export function serviceOf(hub: Emulator, connectionString = hub.serviceConnectionString()): ServiceOptions {
  const makeToken = serviceTokens(parseServiceConnectionString(connectionString));
  return { endpoint: endpointOf(hub), makeToken, clock: systemClock, log: silentLog };
}

export function eventsOf(hub: Emulator, connectionString = hub.eventHubConnectionString): EventHub {
  const { trust } = endpointOf(hub);
  return eventHubOf(parseEventHubConnectionString(connectionString), {
    trust,
    clock: systemClock,
    log: silentLog,
  });
}

/** Devices that are in different partitions of a hub of four, so that each partition has one. */
export const devices = ['d0', 'd1', 'd2', 'd3', 'd4', 'd5', 'd6', 'd7', 'd8', 'd9'];

/** Sends messages with these ids as the device. */
export async function sendAs(hub: Emulator, deviceId: string, ids: readonly string[]): Promise<void> {
  await using session = await openSession(hub, {
    connectionString: hub.deviceConnectionString(deviceId),
    links: ['telemetry'],
    signal: new AbortController().signal,
  });
  const until = AbortSignal.timeout(20_000);
  for (const messageId of ids) {
    if (session.telemetry.credit <= 0) await session.telemetry.moreCredit(until);
    const properties = { k: 'v' };
    await session.telemetry.send(encode(message({ messageId, properties, contentType: 'application/json' })));
  }
}

/** The next events of a monitor, all dealt with. */
export async function take(events: Monitor, count: number): Promise<HubEvent[]> {
  const taken: HubEvent[] = [];
  while (taken.length < count) {
    const { value } = await events.next();
    taken.push(value!);
  }
  events.done();
  return taken;
}

/** A promise that resolves when `raise` is called. */
export function signalled(): { promise: Promise<void>; raise: () => void } {
  const raised = new AbortController();
  return {
    promise: once(raised.signal, 'abort').then(() => undefined),
    raise: () => {
      raised.abort();
    },
  };
}
