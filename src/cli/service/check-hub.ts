import type { ServiceConnectionString } from '../../identity/connection-string.js';
import type { Log } from '../../log.js';
import { openServiceClient, type ServiceOptions } from '../../service/client.js';
import { openCommandSender } from '../../service/commands.js';
import { EventHubConnection, findEventHub } from '../../service/event-hub.js';
import { openFeedback } from '../../service/feedback.js';
import type { Finding } from '../check/checks.js';
import { printedChecks } from '../check/printed-checks.js';
import { checkWayIn } from '../check/way-in.js';
import { waysOf, type Ways } from '../check/ways.js';
import { readServiceIdentity } from '../identity-options.js';
import type { Io } from '../io.js';
import { restOf, serviceHub } from './hub.js';
import type { RestFlags } from './rest-options.js';

/** Of an answer of the hub: it may have to look for it. */
const withinMs = 10_000;

/** Makes all the checks, prints a line for each, and returns the exit code: that of the first that failed. */
export async function checkHub(io: Io, flags: RestFlags, log: Log): Promise<number> {
  const checks = printedChecks(io, flags);
  const policy = await checks.make('identity', {}, () => whoAsks(io, flags, log));
  const way = await checkWayIn(checks, policy);
  // Each on a connection of its own: what the hub refuses to one takes nothing from the next.
  const hub = await checks.make(
    'token',
    { needs: [policy, way], withinMs },
    async ([{ options }, endpoint], signal): Promise<Finding<ServiceOptions>> => {
      const value = { ...options, endpoint };
      await using _client = await openServiceClient(value, signal);
      return { result: 'ok', value, detail: 'the hub takes it' };
    },
  );
  await checks.make('commands', { needs: [hub], withinMs }, async ([options], signal) => {
    await using client = await openServiceClient(options, signal);
    await openCommandSender(client, signal);
    return { result: 'ok', detail: 'may be sent' };
  });
  await checks.make('feedback', { needs: [hub], withinMs }, async ([options], signal) => {
    await using client = await openServiceClient(options, signal);
    await openFeedback(client, { credit: 0, onBatch: () => undefined }, signal);
    return { result: 'ok', detail: 'may be read' };
  });
  await checks.make(
    'event-hub',
    { needs: [policy, hub], withinMs },
    async ([{ identity }, options], signal) => {
      const eventHub = await findEventHub(options, identity, signal);
      await using connection = await EventHubConnection.open(eventHub, signal);
      const partitions = (await connection.partitionIds(signal)).length;
      const { host, port } = eventHub.endpoint;
      const place = `${host}:${String(port)}/${eventHub.name}`;
      const facts = { host, port, name: eventHub.name, partitions };
      return { result: 'ok', detail: `${place}, ${String(partitions)} partitions`, facts };
    },
  );
  await checks.make('rest', { needs: [policy], withinMs }, async ([{ identity }], signal) => {
    using rest = await restOf(io, identity, { ...flags, log });
    await rest.send({ method: 'GET', path: '/statistics/service' }, signal);
    return { result: 'ok', detail: 'it answers' };
  });
  return checks.exitCode;
}

interface Policy {
  identity: ServiceConnectionString;
  options: ServiceOptions;
  ways: Ways;
}

async function whoAsks(io: Io, flags: RestFlags, log: Log): Promise<Finding<Policy>> {
  const identity = await readServiceIdentity(io, flags);
  const options = await serviceHub(io, identity, { ...flags, log });
  const { credential, host } = identity;
  const how = credential.kind === 'key' ? `policy ${credential.policyName}` : 'a ready-made token';
  return {
    result: 'ok',
    value: { identity, options, ways: waysOf(options.endpoint, flags.httpsPort) },
    detail: `${host}, with ${how}`,
    facts: { hub: host, credential: credential.kind },
  };
}
