import * as v from 'valibot';

import { AgentError } from '../errors.js';
import { isValidId } from './device.js';
import type { Hub } from './hub.js';

/**
 * What a hub begins with, from a JSON file:
 *
 *     { "devices": [ { "deviceId": "d", "moduleId": "m", "status": "disabled", "authentication": {…},
 *                      "tags": {…}, "desired": {…} } ] }
 */
const id = v.pipe(v.string(), v.check(isValidId, 'is not an id that IoT Hub allows'));
const key = v.pipe(v.string(), v.base64());
const seedSchema = v.strictObject({
  devices: v.array(
    v.strictObject({
      deviceId: id,
      moduleId: v.optional(id),
      status: v.optional(v.picklist(['enabled', 'disabled'])),
      authentication: v.optional(
        v.variant('type', [
          v.strictObject({ type: v.literal('sas'), primaryKey: key, secondaryKey: key }),
          v.strictObject({
            type: v.literal('selfSigned'),
            primaryThumbprint: v.string(),
            secondaryThumbprint: v.optional(v.string(), ''),
          }),
          v.strictObject({ type: v.literal('certificateAuthority') }),
          v.strictObject({ type: v.literal('none') }),
        ]),
      ),
      tags: v.optional(v.record(v.string(), v.unknown())),
      desired: v.optional(v.record(v.string(), v.unknown())),
    }),
  ),
});

export type Seed = v.InferOutput<typeof seedSchema>;

/** Reads a seed file's text; a `config` error that names what is wrong. */
export function parseSeed(text: string, file: string): Seed {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new AgentError('config', `${file} is not JSON`, { cause });
  }
  const result = v.safeParse(seedSchema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new AgentError('config', `${file}: ${v.getDotPath(issue) ?? 'it'}: ${issue.message}`);
}

/** Registers what is not registered yet. */
export function plant(hub: Hub, { devices }: Seed): void {
  for (const { deviceId, moduleId, status, authentication, tags, desired } of devices) {
    if (hub.find(deviceId, moduleId) !== undefined) continue;
    const device = hub.add({ deviceId, moduleId }, authentication);
    if (status !== undefined) device.status = status;
    const result = device.twin.patch({ ...(tags && { tags }), ...(desired && { desired }) }, hub.now());
    if (!result.ok) throw new AgentError('config', `the seed's twin of ${deviceId}: ${result.message}`);
  }
}
