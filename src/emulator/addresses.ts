import type { DeviceId } from '../model.js';

/**
 * Where a link goes. SDKs spell one address in several ways: absolute (`amqps://host:5671/devices/d/…`) or a path,
 * ids encoded or not, `deviceBound` or `devicebound`; the hub takes them all.
 */
export type LinkKind =
  | 'cbs'
  | 'telemetry'
  | 'commands'
  | 'inputs'
  | 'methods'
  | 'twin'
  | 'send'
  | 'feedback'
  | 'notifications'
  | 'partition'
  | 'management'
  | 'events'
  /** An address that matches none. */
  | 'unknown';

/** Seen from the client: `out` is a link that it sends on, `in` one that it receives from. */
export type Direction = 'in' | 'out';

export type Route =
  | ({ kind: 'telemetry' | 'commands' | 'inputs' | 'methods' | 'twin' } & DeviceId)
  | { kind: 'cbs' | 'send' | 'feedback' | 'notifications' | 'management' }
  | { kind: 'partition'; eventHub: string; group: string; partition: string }
  /** The hub's own `messages/events`, which redirects to the Event Hubs endpoint; `rest` is what followed it. */
  | { kind: 'events'; rest: string };

/** The link that an address means, or undefined when it matches none of the hub's formats. */
export function routeOf(address: string, direction: Direction): Route | undefined {
  const path = pathOf(address);
  const words = path.map((segment) => segment.toLowerCase());
  if (words[0] === '$cbs' && path.length === 1) return { kind: 'cbs' };
  if (words[0] === '$management' && path.length === 1) return { kind: 'management' };
  if (words[0] === 'devices' && path[1] !== undefined) return deviceRoute(path, words, direction);
  if (words[0] === 'messages') return serviceRoute(path, words, direction);
  return direction === 'in' ? partitionRoute(path, words) : undefined;
}

function deviceRoute(path: string[], words: string[], direction: Direction): Route | undefined {
  const inModule = words[2] === 'modules' && path[3] !== undefined;
  const id: DeviceId = { deviceId: decoded(path[1] ?? '') };
  if (inModule) id.moduleId = decoded(path[3] ?? '');
  switch (words.slice(inModule ? 4 : 2).join('/')) {
    case 'messages/events':
      if (direction === 'out') return { kind: 'telemetry', ...id };
      return inModule ? { kind: 'inputs', ...id } : undefined;
    case 'messages/devicebound':
      return direction === 'in' ? { kind: 'commands', ...id } : undefined;
    case 'methods/devicebound':
      return { kind: 'methods', ...id };
    case 'twin':
      return { kind: 'twin', ...id };
    default:
      return undefined;
  }
}

function serviceRoute(path: string[], words: string[], direction: Direction): Route | undefined {
  const rest = words.slice(1).join('/');
  if (words[1] === 'events') return { kind: 'events', rest: path.slice(2).join('/') };
  if (direction === 'out') return rest === 'devicebound' ? { kind: 'send' } : undefined;
  if (rest === 'servicebound/feedback') return { kind: 'feedback' };
  if (rest === 'servicebound/filenotifications') return { kind: 'notifications' };
  return undefined;
}

function partitionRoute(path: string[], words: string[]): Route | undefined {
  const [eventHub, , group, , partition] = path;
  if (path.length !== 5 || words[1] !== 'consumergroups' || words[3] !== 'partitions') return undefined;
  if (eventHub === undefined || group === undefined || partition === undefined) return undefined;
  return { kind: 'partition', eventHub, group, partition };
}

/** The segments of an address or of a token's resource, after scheme and host, as they were written. */
export function pathOf(address: string): string[] {
  return address
    .replace(/^[a-z]+:\/\/[^/]*/i, '')
    .split('/')
    .filter((segment) => segment !== '');
}

/** Percent-decoded; as it was when it is not percent-encoding after all (the Node SDK encodes no ids). */
export function decoded(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
