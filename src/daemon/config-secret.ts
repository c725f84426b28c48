import { resolve } from 'node:path';
import * as v from 'valibot';

import { Secret } from '../secret.js';

/** Where a secret is; it is fetched when it is needed, so that a changed one is seen. */
export type SecretSource =
  | { from: 'text'; text: Secret }
  | { from: 'env'; name: string }
  | { from: 'file'; path: string }
  | { from: 'credential'; name: string };

const places = [
  v.strictObject({ env: v.pipe(v.string(), v.description('Environment variable')) }),
  v.strictObject({ file: v.pipe(v.string(), v.description('Path of a file')) }),
  v.strictObject({ credential: v.pipe(v.string(), v.description('systemd credential (LoadCredential=)')) }),
] as const;

/** A secret of one line. */
export const secret = v.union(
  [v.pipe(v.string(), v.description('The text itself; keep the file from others then')), ...places],
  'write { credential = "NAME" }, { file = "PATH" }, { env = "NAME" } or the text itself',
);

/** A secret that nobody would write into a configuration. */
export const secretFile = v.union(
  [v.pipe(v.string(), v.description('Path of a file')), ...places],
  'write the path of a file, { credential = "NAME" } or { env = "NAME" }',
);

/** What the file says, with its paths relative to `folder`. */
export function secretSource(said: v.InferOutput<typeof secret>, folder: string): SecretSource {
  if (typeof said === 'string') return { from: 'text', text: new Secret(said) };
  return placeOf(said, folder);
}

export function secretFileSource(said: v.InferOutput<typeof secretFile>, folder: string): SecretSource {
  return placeOf(typeof said === 'string' ? { file: said } : said, folder);
}

function placeOf(
  said: { env: string } | { file: string } | { credential: string },
  folder: string,
): SecretSource {
  if ('env' in said) return { from: 'env', name: said.env };
  if ('file' in said) return { from: 'file', path: resolve(folder, said.file) };
  return { from: 'credential', name: said.credential };
}
