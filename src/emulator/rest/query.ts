import type { Hono } from 'hono';

import type { Device } from '../device.js';
import type { Hub } from '../hub.js';
import { isObject } from '../twin.js';
import type { Json } from '../twin.js';
import { RestError, jsonObject, requires } from './app.js';
import { rootDevices } from './registry.js';
import { twinJson } from './twins.js';

/**
 * The query language of IoT Hub, as far as people use it:
 *
 *     SELECT * | path [AS name], … | COUNT() AS name
 *     FROM devices | devices.modules
 *     [WHERE path = value AND … OR … NOT … IN […] STARTSWITH(…) ENDSWITH(…) IS_DEFINED(…)]
 */
export function queryRoutes(app: Hono, hub: Hub): void {
  app.post('/devices/query', requires(hub, 'ServiceConnect', 'RegistryRead'), async (c) => {
    const { query } = await jsonObject(c);
    const { source, matches, select } = parseQuery(String(query));
    const devices = source === 'devices' ? rootDevices(hub) : modules(hub);
    const rows = select(devices.map(twinJson).filter(matches));
    const size = Math.min(Number(c.req.header('x-ms-max-item-count') ?? 100), 1000);
    const from = Number(Buffer.from(c.req.header('x-ms-continuation') ?? '', 'base64').toString() || 0);
    const headers: Record<string, string> = {
      'x-ms-item-type': /select\s+\*/i.test(String(query)) ? 'Twin' : 'Raw',
    };
    if (from + size < rows.length) {
      headers['x-ms-continuation'] = Buffer.from(String(from + size)).toString('base64');
    }
    return c.json(rows.slice(from, from + size), 200, headers);
  });
}

function modules(hub: Hub): Device[] {
  return [...hub.devices].filter(({ moduleId }) => moduleId !== undefined);
}

interface Query {
  source: 'devices' | 'modules';
  matches: (twin: Json) => boolean;
  select: (twins: Json[]) => Json[];
}

type Value = (twin: Json) => unknown;
type Condition = (twin: Json) => boolean;

/** Reads a query; a RestError that says why when it cannot be read. */
export function parseQuery(text: string): Query {
  const tokens = new Tokens(text);
  tokens.expect('select');
  const select = parseSelection(tokens);
  tokens.expect('from');
  const from = tokens.next().toLowerCase();
  if (from !== 'devices' && from !== 'devices.modules') throw wrong(`FROM ${from} is not supported`);
  // An alias, as in `FROM devices c`, may stand before paths.
  const alias = !tokens.done && !tokens.is('where') ? tokens.next().toLowerCase() : from;
  tokens.alias = alias;
  const matches = tokens.take('where') ? parseOr(tokens) : () => true;
  if (!tokens.done) throw wrong(`"${tokens.next()}" was not expected`);
  return { source: from === 'devices' ? 'devices' : 'modules', matches, select };
}

function parseSelection(tokens: Tokens): Query['select'] {
  if (tokens.take('*')) return (twins) => twins;
  const columns: { name: string; path: string }[] = [];
  do {
    const path = tokens.next();
    if (tokens.take('(')) {
      tokens.expect(')');
      if (path.toLowerCase() !== 'count') throw wrong(`${path}() is not supported`);
      const name = tokens.take('as') ? tokens.next() : 'count';
      return (twins) => [{ [name]: twins.length }];
    }
    columns.push({ path, name: tokens.take('as') ? tokens.next() : path });
  } while (tokens.take(','));
  return (twins) =>
    twins.map((twin) => Object.fromEntries(columns.map(({ name, path }) => [name, valueAt(twin, path)])));
}

function parseOr(tokens: Tokens): Condition {
  let left = parseAnd(tokens);
  while (tokens.take('or')) {
    const [a, b] = [left, parseAnd(tokens)];
    left = (twin) => a(twin) || b(twin);
  }
  return left;
}

function parseAnd(tokens: Tokens): Condition {
  let left = parseNot(tokens);
  while (tokens.take('and')) {
    const [a, b] = [left, parseNot(tokens)];
    left = (twin) => a(twin) && b(twin);
  }
  return left;
}

function parseNot(tokens: Tokens): Condition {
  if (tokens.take('not')) {
    const inner = parseNot(tokens);
    return (twin) => !inner(twin);
  }
  if (tokens.take('(')) {
    const inner = parseOr(tokens);
    tokens.expect(')');
    return inner;
  }
  return parseComparison(tokens);
}

function parseComparison(tokens: Tokens): Condition {
  const name = tokens.peek().toLowerCase();
  if (['startswith', 'endswith', 'is_defined'].includes(name)) return parseFunction(tokens, name);
  const left = parseValue(tokens);
  const operator = tokens.next().toLowerCase();
  if (operator === 'in' || operator === 'nin') {
    const list = parseList(tokens);
    return (twin) => list.some((value) => value(twin) === left(twin)) === (operator === 'in');
  }
  const compare = operators[operator];
  if (compare === undefined) throw wrong(`there is no operator "${operator}"`);
  const right = parseValue(tokens);
  return (twin) => {
    const [a, b] = [left(twin), right(twin)];
    // A property that is not there compares with nothing, not even as different.
    return a !== undefined && b !== undefined && compare(a as string, b as string);
  };
}

const operators: Record<string, (a: string, b: string) => boolean> = {
  '=': (a, b) => a === b,
  '!=': (a, b) => a !== b,
  '<>': (a, b) => a !== b,
  '<': (a, b) => a < b,
  '<=': (a, b) => a <= b,
  '>': (a, b) => a > b,
  '>=': (a, b) => a >= b,
};

function parseFunction(tokens: Tokens, name: string): Condition {
  tokens.next();
  tokens.expect('(');
  const value = parseValue(tokens);
  const other = tokens.take(',') ? parseValue(tokens) : () => '';
  tokens.expect(')');
  if (name === 'is_defined') return (twin) => value(twin) !== undefined;
  return (twin) => {
    const [text, part] = [value(twin), other(twin)];
    if (typeof text !== 'string' || typeof part !== 'string') return false;
    return name === 'startswith' ? text.startsWith(part) : text.endsWith(part);
  };
}

function parseList(tokens: Tokens): Value[] {
  tokens.expect('[');
  const values: Value[] = [];
  while (!tokens.take(']')) {
    values.push(parseValue(tokens));
    tokens.take(',');
  }
  return values;
}

function parseValue(tokens: Tokens): Value {
  const token = tokens.next();
  if (token.startsWith("'") || token.startsWith('"')) {
    const text = token.slice(1, -1).replaceAll("''", "'");
    return () => text;
  }
  if (/^-?[\d.]/.test(token)) return () => Number(token);
  const constants: Record<string, unknown> = { true: true, false: false, null: null };
  const word = token.toLowerCase();
  if (word in constants) return () => constants[word];
  const path = word.startsWith(`${tokens.alias}.`) ? token.slice(tokens.alias.length + 1) : token;
  return (twin) => valueAt(twin, path);
}

/** Names at the top are found in any case: people write `deviceId` and `deviceid`. */
function valueAt(twin: Json, path: string): unknown {
  const [first = '', ...rest] = path.split('.');
  const top = Object.keys(twin).find((name) => name.toLowerCase() === first.toLowerCase()) ?? first;
  return rest.reduce<unknown>((value, name) => (isObject(value) ? value[name] : undefined), twin[top]);
}

class Tokens {
  /** What may stand before a path. */
  alias = 'devices';
  readonly #tokens: string[];

  constructor(text: string) {
    this.#tokens = text.match(/'(?:[^']|'')*'|"[^"]*"|[<>!]=|<>|[=<>(),[\]*]|[^\s=<>!(),[\]*'"]+/g) ?? [];
  }

  get done(): boolean {
    return this.#tokens.length === 0;
  }

  peek(): string {
    return this.#tokens[0] ?? '';
  }

  next(): string {
    const token = this.#tokens.shift();
    if (token === undefined) throw wrong('it ends too early');
    return token;
  }

  is(word: string): boolean {
    return this.peek().toLowerCase() === word;
  }

  take(word: string): boolean {
    if (!this.is(word)) return false;
    this.#tokens.shift();
    return true;
  }

  expect(word: string): void {
    if (!this.take(word)) throw wrong(`"${word}" was expected before "${this.peek()}"`);
  }
}

function wrong(why: string): RestError {
  return new RestError(400, 'IotHubFormatError', `the query cannot be read: ${why}`);
}
