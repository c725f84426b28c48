import type { ParsedConfig } from '../../../daemon/config.js';
import { type Setting, settingsOf } from '../../../daemon/config-settings.js';
import { redact } from '../../../secret.js';
import { visible } from '../../../visible.js';
import type { Io } from '../../io.js';
import { jsonOnOneLine } from '../../json-text.js';
import { tomlKey, tomlValue } from '../../toml-value.js';
import type { Override } from './overrides.js';

export interface ShowOptions {
  format: 'toml' | 'json';
  /** Whether to say of each key where its value is from. */
  origin: boolean;
}

interface Effective extends Setting {
  origin: string;
}

/** Prints what an agent with these files, flags and variables would do. No secret is in it. */
export async function showConfig(
  io: Io,
  parsed: ParsedConfig,
  overrides: readonly Override[],
  { format, origin }: ShowOptions,
): Promise<void> {
  const settings = settingsOf(parsed).map((setting) => effective(parsed, overrides, setting));
  const text = format === 'toml' ? toml(settings, origin) : origin ? lines(settings) : object(settings);
  await io.stdout.write(redact(text));
}

function effective(
  { placeOf, document }: ParsedConfig,
  overrides: readonly Override[],
  setting: Setting,
): Effective {
  const { path } = setting;
  const override = overrides.find((one) => keyOf(one.path) === keyOf(path));
  if (override) return override;
  const place = isSaid(document, path) ? placeOf(path) : undefined;
  const origin = place === undefined ? 'default' : `${place.file}:${String(place.line)}`;
  return { ...setting, origin: setting.value === undefined ? 'not set' : origin };
}

function isSaid(document: unknown, path: Setting['path']): boolean {
  return (
    path.reduce<unknown>(
      (at, key) => (at as Record<string | number, unknown> | undefined)?.[key],
      document,
    ) !== undefined
  );
}

const originColumn = 40;

/** The TOML of a configuration: what is not set is a comment, and only shown when origins are asked for. */
function toml(settings: readonly Effective[], withOrigin: boolean): string {
  const sections = new Map<string, Effective[]>();
  for (const setting of settings) {
    if (setting.value === undefined && !withOrigin) continue;
    const header = keyOf(setting.path.slice(0, -1));
    sections.set(header, [...(sections.get(header) ?? []), setting]);
  }
  return [...sections.values()]
    .map((keys) => [headerOf(keys), ...keys.map((setting) => line(setting, withOrigin)), ''].join('\n'))
    .join('\n');
}

function headerOf([first]: readonly Effective[]): string {
  const [section = '', index] = first?.path ?? [];
  return typeof index === 'number' ? `[[${section}]]` : `[${section}]`;
}

function line({ path, value, origin }: Effective, withOrigin: boolean): string {
  const key = tomlKey(String(path.at(-1)));
  if (value === undefined) return `# ${key} is ${origin}`;
  const text = `${key} = ${tomlValue(value)}`;
  return withOrigin ? `${text.padEnd(originColumn)}  # ${visible(origin)}` : text;
}

type Table = Record<string, unknown>;

/** A configuration in JSON. */
function object(settings: readonly Effective[]): string {
  const document: Record<string, Table | Table[]> = {};
  for (const { path, value } of settings) {
    const [section = '', at] = path;
    const key = String(path.at(-1));
    if (typeof at !== 'number') {
      document[section] = { ...(document[section] as Table | undefined), [key]: value };
      continue;
    }
    const tables = (document[section] ??= []) as Table[];
    tables[at] = { ...tables[at], [key]: value };
  }
  return `${jsonOnOneLine(JSON.stringify(document))}\n`;
}

function lines(settings: readonly Effective[]): string {
  return settings
    .map(({ path, value, origin }) => ({ key: keyOf(path), value: value ?? null, origin }))
    .map((one) => `${jsonOnOneLine(JSON.stringify(one))}\n`)
    .join('');
}

/** `hub.ca`, `handlers[1].exec`, counted as people count. */
function keyOf(path: Setting['path']): string {
  return path
    .map((part) => (typeof part === 'number' ? `[${String(part + 1)}]` : `.${part}`))
    .join('')
    .slice(1);
}
