import { descend } from '../../agent/merge-patch.js';
import { readTwin } from '../../agent/twin-document.js';
import { AgentError } from '../../errors.js';
import { parseJson } from '../../handlers/json.js';
import { visible } from '../../visible.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { createPrinter } from '../output.js';
import type { DeviceHub } from './hub.js';
import { askTwin } from './twin-ask.js';
import type { TwinGetFlags } from './twin.js';

/** Prints the twin: for people over several lines, else on one as the hub sent it. A property that is a text is printed without its quotes for people. */
export async function getTwin(io: Io, hub: DeviceHub, flags: TwinGetFlags): Promise<void> {
  const names = flags.path === undefined ? [] : namesOf(flags.path);
  const bytes = await askTwin(io, hub, flags, (twin, signal) => twin.get(signal));
  readTwin(bytes); // or it is no twin
  const parsed = parseJson(bytes);
  const value = parsed.ok ? descend(parsed.value, names) : undefined;
  if (value === undefined) return;
  await createPrinter(io, flags).print({
    json: () => jsonOnOneLine(names.length === 0 ? bytes.toString('utf8') : JSON.stringify(value)),
    text: () => (typeof value === 'string' ? visible(value) : forPeople(value)),
  });
}

function namesOf(path: string): string[] {
  const names = path.split('.');
  if (names[0] === 'desired' || names[0] === 'reported') return names;
  throw new AgentError('usage', `--path begins with desired or reported, and this is ${path}`, {
    hint: `--path desired.${path}`,
  });
}

function forPeople(value: unknown): string {
  return JSON.stringify(value, null, 2).split('\n').map(visible).join('\n');
}
