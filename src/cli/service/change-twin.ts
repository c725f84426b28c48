import { combined, isJsonObject, member, nested, type JsonObject } from '../../agent/merge-patch.js';
import type { DeviceId } from '../../model.js';
import type { RestClient } from '../../service/rest.js';
import { Twins } from '../../service/twins.js';
import { visible } from '../../visible.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { createPrinter, type OutputFlags } from '../output.js';
import { readPatch } from '../twin-patch.js';
import type { TwinChangeFlags, TwinGetFlags } from './twin.js';

/** Prints the twin, or a part of it. */
export async function getTwin(
  io: Io,
  rest: RestClient,
  { id, flags }: { id: DeviceId; flags: TwinGetFlags },
  signal: AbortSignal,
): Promise<void> {
  const text = await new Twins(rest).get(id, signal);
  if (flags.path === undefined) {
    await printJson(io, flags, text);
    return;
  }
  let value = JSON.parse(text) as unknown;
  for (const name of flags.path.split('.')) value = isJsonObject(value) ? member(value, name) : undefined;
  if (value !== undefined) await printJson(io, flags, JSON.stringify(value));
}

/** Changes a part of the twin and prints what came of it. */
export async function changeTwin(
  io: Io,
  rest: RestClient,
  change: { id: DeviceId; part: 'desired' | 'tags'; words: readonly string[]; flags: TwinChangeFlags },
  signal: AbortSignal,
): Promise<void> {
  const { id, part, words, flags } = change;
  const { file, null: deleted = [], replace, etag } = flags;
  const isNamed = words.length > 0 || file !== undefined || deleted.length === 0;
  const given = isNamed ? await readPatch(io, words, { ...(file !== undefined && { file }) }) : '{}';
  const patch = deleted.length === 0 ? given : JSON.stringify(without(deleted, given));
  const text = await new Twins(rest).change(id, { [part]: patch, replace, etag }, signal);
  await printJson(io, flags, text);
}

function without(names: readonly string[], patch: string): JsonObject {
  const given = JSON.parse(patch) as JsonObject;
  return names.reduce((soFar, name) => combined(soFar, nested(name.split('.'), null)), given);
}

/** For people over several lines, a text without its quotes; else on one line, as it was written. */
export async function printJson(io: Io, flags: OutputFlags, text: string): Promise<void> {
  const value = JSON.parse(text) as unknown;
  await createPrinter(io, flags).print({
    json: () => jsonOnOneLine(text),
    text: () =>
      typeof value === 'string'
        ? visible(value)
        : JSON.stringify(value, undefined, 2).split('\n').map(visible).join('\n'),
  });
}
