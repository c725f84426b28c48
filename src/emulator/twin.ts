import { newEtag } from './device.js';

/**
 * A device twin: tags and desired properties, which a service writes, and reported ones, which the device does.
 * A patch merges: null deletes, objects merge, anything else replaces. Every accepted write raises the section's
 * version by one, even when it changes nothing. Source: "Understand and use device twins in IoT Hub".
 */
export class Twin {
  etag = newEtag();
  /** Rises with each change of any section. */
  version = 2;
  tags: Json = {};
  desired = newSection();
  reported = newSection();
  readonly #watchers = new Set<(notification: Json) => void>();

  /** A device's write; returns the new version of its reported properties. */
  patchReported(patch: unknown, now: number): TwinResult {
    const refused = objection(patch, this.reported.properties, sectionBytes);
    if (refused) return refused;
    update(this.reported, patch as Json, now);
    this.#changed();
    return { ok: true, version: this.reported.version };
  }

  /** A service's write of tags, desired properties or both; `null` for a section removes all of it. */
  patch({ tags, desired }: TwinPatch, now: number): TwinResult {
    const wholeTags = tags === null ? nullsFor(this.tags) : tags;
    const wholeDesired = desired === null ? nullsFor(this.desired.properties) : desired;
    const refused =
      objection(wholeTags ?? {}, this.tags, tagBytes) ??
      objection(wholeDesired ?? {}, this.desired.properties, sectionBytes);
    if (refused) return refused;
    if (wholeTags !== undefined) this.tags = merged(this.tags, wholeTags as Json);
    if (wholeDesired !== undefined) this.#updateDesired(wholeDesired as Json, now);
    this.#changed();
    return { ok: true, version: this.desired.version };
  }

  /** A service's replacement: what it does not name is gone. */
  replace({ tags, desired }: TwinPatch, now: number): TwinResult {
    const patch: TwinPatch = {};
    if (tags !== undefined) patch.tags = isObject(tags) ? { ...nullsFor(this.tags), ...tags } : tags;
    if (isObject(desired)) {
      // Objects are replaced as well, so each is first taken out.
      const gone = nullsFor(this.desired.properties);
      const refused = objection(desired, {}, sectionBytes);
      if (refused) return refused;
      this.desired.properties = {};
      patch.desired = { ...gone, ...desired };
    } else if (desired !== undefined) patch.desired = desired;
    return this.patch(patch, now);
  }

  /** What the device itself reads: no tags, no metadata. */
  forDevice(): Json {
    return {
      desired: { ...this.desired.properties, $version: this.desired.version },
      reported: { ...this.reported.properties, $version: this.reported.version },
    };
  }

  /** Both sections as the service reads them. */
  forService(): Json {
    return { desired: withMetadata(this.desired), reported: withMetadata(this.reported) };
  }

  /** Calls `watcher` with each change of the desired properties, `$version` in it; returns what ends that. */
  watch(watcher: (notification: Json) => void): () => void {
    this.#watchers.add(watcher);
    return () => {
      this.#watchers.delete(watcher);
    };
  }

  /** Puts back what a former process kept. */
  restore(stored: Pick<Twin, 'etag' | 'version' | 'tags' | 'desired' | 'reported'>): void {
    Object.assign(this, stored);
  }

  #updateDesired(patch: Json, now: number): void {
    update(this.desired, patch, now);
    const notification = { ...patch, $version: this.desired.version };
    for (const watcher of this.#watchers) watcher(notification);
  }

  #changed(): void {
    this.version++;
    this.etag = newEtag();
  }
}

export type Json = Record<string, unknown>;

export interface TwinPatch {
  tags?: unknown;
  desired?: unknown;
}

export type TwinResult = { ok: true; version: number } | { ok: false; status: 400; message: string };

export interface Section {
  properties: Json;
  /** One entry per property, nested as they are, each with the time of its last write. */
  metadata: Json;
  version: number;
}

function newSection(): Section {
  return { properties: {}, metadata: { $lastUpdated: '0001-01-01T00:00:00Z' }, version: 1 };
}

function update(section: Section, patch: Json, now: number): void {
  const clean = withoutSystemKeys(patch);
  section.version++;
  const stamp = { $lastUpdated: new Date(now).toISOString(), $lastUpdatedVersion: section.version };
  section.properties = merged(section.properties, clean);
  section.metadata = stamped(section.metadata, clean, stamp);
}

function withMetadata({ properties, metadata, version }: Section): Json {
  return { ...properties, $metadata: metadata, $version: version };
}

export function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function merged(target: Json, patch: Json): Json {
  const result: Json = { ...target };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) Reflect.deleteProperty(result, key);
    else if (isObject(value)) result[key] = merged(isObject(result[key]) ? result[key] : {}, value);
    else result[key] = value;
  }
  return result;
}

function stamped(metadata: Json, patch: Json, stamp: Json): Json {
  const result: Json = { ...metadata, ...stamp };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) Reflect.deleteProperty(result, key);
    else if (isObject(value)) result[key] = stamped(isObject(result[key]) ? result[key] : {}, value, stamp);
    else result[key] = stamp;
  }
  return result;
}

/** `$version` and `$metadata` come along when someone writes back what was read. */
function withoutSystemKeys(patch: Json): Json {
  return Object.fromEntries(Object.entries(patch).filter(([key]) => !key.startsWith('$')));
}

function nullsFor(section: Json): Json {
  return Object.fromEntries(Object.keys(section).map((key) => [key, null]));
}

const sectionBytes = 32 * 1024;
const tagBytes = 8 * 1024;
const maxDepth = 10;
const maxKeyBytes = 1024;
const maxStringBytes = 4096;
const maxInteger = 4_503_599_627_370_496;

/** Why a patch may not be merged into a section, if it may not. */
function objection(
  patch: unknown,
  section: Json,
  maxBytes: number,
): Extract<TwinResult, { ok: false }> | undefined {
  if (!isObject(patch)) return refused('a twin is patched with a JSON object');
  const clean = withoutSystemKeys(patch);
  const problem = problemWith(clean, 1);
  if (problem !== undefined) return refused(problem);
  if (sizeOf(merged(section, clean)) > maxBytes) return refused(`the section may have ${maxBytes} bytes`);
  return undefined;
}

function refused(message: string): Extract<TwinResult, { ok: false }> {
  return { ok: false, status: 400, message };
}

function problemWith(value: unknown, depth: number): string | undefined {
  if (typeof value === 'string' && Buffer.byteLength(value) > maxStringBytes) {
    return `a string may have ${maxStringBytes} bytes`;
  }
  if (typeof value === 'number' && Number.isInteger(value) && Math.abs(value) > maxInteger) {
    return `an integer may be at most ${maxInteger}`;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  if (depth > maxDepth) return `it may be ${maxDepth} levels deep`;
  for (const [key, inner] of Object.entries(value)) {
    if (!Array.isArray(value)) {
      if (Buffer.byteLength(key) > maxKeyBytes) return `a key may have ${maxKeyBytes} bytes`;
      if (/[.$ \u0000-\u001f\u007f-\u009f]/.test(key))
        return `the key "${key}" has a character that no key may have`;
    }
    const problem = problemWith(inner, depth + 1);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

/** As the hub counts: names and strings by their bytes, numbers 8, booleans 4. */
function sizeOf(value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value);
  if (typeof value === 'number') return 8;
  if (typeof value === 'boolean') return 4;
  if (typeof value !== 'object' || value === null) return 0;
  return Object.entries(value).reduce(
    (sum, [key, inner]) => sum + (Array.isArray(value) ? 0 : Buffer.byteLength(key)) + sizeOf(inner),
    0,
  );
}
