import { combined, isJsonObject, nested, type JsonObject } from '../agent/merge-patch.js';
import { AgentError } from '../errors.js';
import { parseJson } from '../handlers/json.js';
import type { Io } from './io.js';
import { readSmallFile } from './small-file.js';

/** More than the hub takes for all that is reported, or desired. */
const longestPatchBytes = 256 * 1024;

/** The patch that the command line names, as the text of a JSON object. Errors: `usage`, `data`, `no-input`, `io`. */
export async function readPatch(
  io: Io,
  words: readonly string[],
  { file, path }: { file?: string; path?: string },
): Promise<string> {
  const [first = ''] = words;
  if ((file === undefined) === (words.length === 0)) {
    throw new AgentError('usage', 'the patch is missing, or is there twice', {
      hint: `name it as '{"fw":"1.2"}', as NAME=JSON, or with --file FILE`,
    });
  }
  if (file !== undefined) return under(path, objectIn(await textOf(io, file), file), undefined);
  if (first.trimStart().startsWith('{') && words.length === 1) {
    return under(path, objectIn(first, 'the patch'), first);
  }
  return under(path, words.map(assignment).reduce(combined), undefined);
}

/** As it was written, if nothing has to be put around it. */
function under(path: string | undefined, patch: JsonObject, text: string | undefined): string {
  if (path === undefined) return text ?? JSON.stringify(patch);
  return JSON.stringify(nested(namesOf(path), patch));
}

/** `fan.speed=3` is `{"fan":{"speed":3}}`. */
function assignment(word: string): JsonObject {
  const equals = word.indexOf('=');
  if (equals < 1) {
    throw new AgentError('usage', `${word} is neither a JSON object nor NAME=JSON`);
  }
  const [name, text] = [word.slice(0, equals), word.slice(equals + 1)];
  const parsed = parseJson(Buffer.from(text));
  if (!parsed.ok) {
    throw new AgentError('data', `the value of ${name} is not JSON: ${text}`, {
      hint: `a text has quotes of its own: ${name}='${JSON.stringify(text)}'`,
    });
  }
  return nested(namesOf(name), parsed.value);
}

function namesOf(path: string): string[] {
  const names = path.split('.');
  if (names.every((name) => name !== '')) return names;
  throw new AgentError('usage', `${path} has an empty name in it`);
}

function objectIn(text: string, what: string): JsonObject {
  const parsed = parseJson(Buffer.from(text));
  if (!parsed.ok) throw new AgentError('data', `${what} is ${parsed.why}`);
  if (!isJsonObject(parsed.value)) throw new AgentError('data', `${what} is no JSON object`);
  return parsed.value;
}

async function textOf(io: Io, file: string): Promise<string> {
  if (file !== '-') return readSmallFile(file, 'the patch');
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of io.stdin) {
    chunks.push(chunk as Buffer);
    bytes += (chunk as Buffer).length;
    if (bytes > longestPatchBytes) throw new AgentError('data', 'standard input is too long for a patch');
  }
  return Buffer.concat(chunks).toString('utf8');
}
