import type { DeviceId, Properties } from '../model.js';
import type { Handler, Order } from './handler.js';

/** The lane (see `Lanes`) of a command: what is in one lane happens one after the other. Undefined: it has none. */
export function laneOf(
  order: Order,
  handler: Pick<Handler, 'name'>,
  { deviceId, moduleId = '', properties }: DeviceId & { properties: Properties },
): string | undefined {
  if (order === 'handler') return `command ${handler.name}`;
  if (order === 'device') return `device ${deviceId}/${moduleId}`;
  if (order === 'none') return undefined;
  const value = Object.hasOwn(properties, order.key) ? properties[order.key] : undefined;
  return value === undefined ? undefined : `key ${value}`;
}
