import { AgentError } from '../errors.js';
import { parseJson } from '../handlers/json.js';
import type { TwinSection } from './desired.js';
import { isJsonObject, member, type JsonObject } from './merge-patch.js';

/** A twin as its device reads it: without tags and metadata. */
export interface TwinDocument {
  desired: TwinSection;
  reported: TwinSection;
}

/** Reads the hub's JSON. Errors: `protocol`. */
export function readTwin(bytes: Buffer): TwinDocument {
  const parsed = parseJson(bytes);
  const document = parsed.ok && isJsonObject(parsed.value) ? parsed.value : {};
  const desired = sectionOf(member(document, 'desired'));
  const reported = sectionOf(member(document, 'reported'));
  if (desired === undefined || reported === undefined) {
    const why = parsed.ok ? 'it has no desired and reported properties with a $version' : parsed.why;
    throw new AgentError('protocol', `the twin that the hub sent cannot be read: ${why}`);
  }
  return { desired, reported };
}

/** Reads a notification: the patch with the `$version` that it led to. Undefined when it is none. */
export function readPatch(bytes: Buffer): TwinSection | undefined {
  const parsed = parseJson(bytes);
  return parsed.ok ? sectionOf(parsed.value) : undefined;
}

function sectionOf(value: unknown): TwinSection | undefined {
  if (!isJsonObject(value)) return undefined;
  const version = member(value, '$version');
  if (typeof version !== 'number' || !Number.isSafeInteger(version)) return undefined;
  return { version, properties: withoutSystemMembers(value) };
}

function withoutSystemMembers(section: JsonObject): JsonObject {
  return Object.fromEntries(Object.entries(section).filter(([name]) => !name.startsWith('$')));
}
