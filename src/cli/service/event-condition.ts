import { isJsonObject, member } from '../../agent/merge-patch.js';
import type { HubEvent } from '../../amqp/event-message.js';

/** Whether an event is wanted. */
export type Condition = (event: HubEvent) => boolean;

const operators: Record<string, (order: number) => boolean> = {
  '=': (order) => order === 0,
  '!=': (order) => order !== 0,
  '>': (order) => order > 0,
  '>=': (order) => order >= 0,
  '<': (order) => order < 0,
  '<=': (order) => order <= 0,
};

/**
 * Reads `body.temperature>30` or `properties.level="error"`; undefined when it is neither. Two numbers are compared as
 * numbers, everything else as text. What an event does not have is unlike everything.
 */
export function parseCondition(text: string): Condition | undefined {
  const [, path = '', operator = '', given = ''] =
    /^\s*([^=!<>\s]+)\s*(!=|>=|<=|=|>|<)\s*(.*?)\s*$/.exec(text) ?? [];
  const holds = operators[operator];
  if (holds === undefined) return undefined;
  const wanted = /^"(.*)"$/.exec(given)?.[1] ?? given;
  return (event) => {
    const value = valueAt(event, path.split('.'));
    return value === undefined ? operator === '!=' : holds(compare(value, wanted));
  };
}

function valueAt(event: HubEvent, [first = '', ...names]: string[]): unknown {
  if (first === 'body') return within(jsonOf(event.body), names);
  if (first === 'properties' || first === 'annotations') return own(event[first], names.join('.'));
  return names.length === 0 ? own({ ...event }, first) : undefined;
}

function within(value: unknown, names: readonly string[]): unknown {
  return names.reduce<unknown>(
    (soFar, name) => (isJsonObject(soFar) ? member(soFar, name) : undefined),
    value,
  );
}

function own(fields: Readonly<Record<string, unknown>>, name: string): unknown {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}

function jsonOf(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch {
    return undefined;
  }
}

function compare(value: unknown, wanted: string): number {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  const [a, b] = [Number(text), Number(wanted)];
  if (text.trim() !== '' && wanted !== '' && !Number.isNaN(a) && !Number.isNaN(b)) return a - b;
  return text === wanted ? 0 : text > wanted ? 1 : -1;
}
