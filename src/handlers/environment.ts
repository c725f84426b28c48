import type { EventKind, HandlerEvent } from './contract.js';
import { parseJson } from './json.js';

/**
 * The environment of a program: a few variables of the agent's own, and the event as `IOTHUB_*`. Built from nothing,
 * so that no credential of the agent can be in it.
 */

/** What a program inherits. Everything else of the agent's environment stays with the agent. */
const inherited = ['PATH', 'HOME', 'LANG', 'TZ'] as const;

/** Linux refuses a single string of 128 KiB (MAX_ARG_STRLEN); `IOTHUB_PROPERTIES` bounds what there is in all. */
const longestVariableBytes = 120 * 1024;

export interface RunFacts {
  handler: string;
  attempt: number;
  /** Milliseconds since the epoch. */
  deadline: number;
}

export type EnvironmentResult =
  | { ok: true; variables: Record<string, string> }
  /** The message cannot be handed over and never will be. */
  | { ok: false; why: string };

export function environmentOf(
  event: HandlerEvent,
  facts: RunFacts,
  extra: Readonly<Record<string, string>> = {},
): EnvironmentResult {
  const variables = inheritedVariables();
  const put = (name: string, value: string | number | undefined): void => {
    if (value !== undefined) variables[name] = harmless(String(value));
  };
  const putTime = (name: string, ms: number | undefined): void => {
    put(name, isoTime(ms));
  };

  const properties = propertyVariables(event.properties);
  Object.assign(variables, properties, extra);
  put('IOTHUB_EVENT', event.event);
  put('IOTHUB_HANDLER', facts.handler);
  put('IOTHUB_ATTEMPT', facts.attempt);
  putTime('IOTHUB_DEADLINE', facts.deadline);
  put('IOTHUB_DEVICE_ID', event.deviceId);
  put('IOTHUB_MODULE_ID', event.moduleId);
  put('IOTHUB_CONTENT_TYPE', event.contentType);
  switch (event.event) {
    case 'command':
      put('IOTHUB_MESSAGE_ID', event.messageId);
      put('IOTHUB_CORRELATION_ID', event.correlationId);
      put('IOTHUB_USER_ID', event.userId);
      put('IOTHUB_CONTENT_ENCODING', event.contentEncoding);
      put('IOTHUB_ACK', event.ack);
      put('IOTHUB_SEQUENCE_NUMBER', event.sequenceNumber);
      put('IOTHUB_DELIVERY_COUNT', event.deliveryCount);
      putTime('IOTHUB_ENQUEUED_TIME', event.enqueuedAt);
      putTime('IOTHUB_EXPIRES', event.expiresAt);
      // Exact, where the variables are not: JSON escapes what an environment must not hold.
      variables['IOTHUB_PROPERTIES'] = JSON.stringify(event.properties);
      break;
    case 'method':
      put('IOTHUB_METHOD', event.method);
      put('IOTHUB_REQUEST_ID', event.requestId);
      break;
    case 'twin':
      put('IOTHUB_TWIN_PATH', event.path);
      put('IOTHUB_TWIN_VERSION', event.version);
      break;
  }
  const why = refusal(event, variables);
  return why === undefined ? { ok: true, variables } : { ok: false, why };
}

/** The event that these variables tell of, for a module that is run as a program. What is missing is left out. */
export function eventIn(
  variables: Readonly<Record<string, string | undefined>>,
  on: EventKind,
  body: Buffer,
): HandlerEvent {
  const number = (name: string): number | undefined => finite(Number.parseInt(variables[name] ?? '', 10));
  const time = (name: string): number | undefined => finite(Date.parse(variables[name] ?? ''));
  const fields = {
    deviceId: variables['IOTHUB_DEVICE_ID'] ?? '',
    moduleId: variables['IOTHUB_MODULE_ID'],
    contentType: variables['IOTHUB_CONTENT_TYPE'],
    properties: {},
    body,
  };
  switch (on) {
    case 'command':
      return {
        ...fields,
        event: on,
        messageId: variables['IOTHUB_MESSAGE_ID'],
        correlationId: variables['IOTHUB_CORRELATION_ID'],
        userId: variables['IOTHUB_USER_ID'],
        contentEncoding: variables['IOTHUB_CONTENT_ENCODING'],
        ack: variables['IOTHUB_ACK'],
        sequenceNumber: number('IOTHUB_SEQUENCE_NUMBER'),
        deliveryCount: number('IOTHUB_DELIVERY_COUNT') ?? 0,
        enqueuedAt: time('IOTHUB_ENQUEUED_TIME'),
        expiresAt: time('IOTHUB_EXPIRES'),
        properties: stringsIn(variables['IOTHUB_PROPERTIES'] ?? '{}'),
      };
    case 'method':
      return {
        ...fields,
        event: on,
        method: variables['IOTHUB_METHOD'] ?? '',
        requestId: variables['IOTHUB_REQUEST_ID'],
      };
    case 'twin':
      return {
        ...fields,
        event: on,
        path: variables['IOTHUB_TWIN_PATH'] ?? '',
        version: number('IOTHUB_TWIN_VERSION') ?? 0,
      };
  }
}

function finite(value: number): number | undefined {
  return Number.isFinite(value) ? value : undefined;
}

function stringsIn(json: string): Record<string, string> {
  const parsed = parseJson(Buffer.from(json));
  if (!parsed.ok || typeof parsed.value !== 'object' || parsed.value === null) return {};
  return Object.fromEntries(Object.entries(parsed.value).map(([name, value]) => [name, String(value)]));
}

/** What every program gets of the agent's own environment. */
export function inheritedVariables(): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const name of inherited) {
    const value = process.env[name];
    if (value !== undefined) variables[name] = value;
  }
  return variables;
}

/** `fan-speed` → `IOTHUB_PROP_FAN_SPEED`; of two properties that come out alike the first stays. */
function propertyVariables(properties: Readonly<Record<string, string>>): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const [name, value] of Object.entries(properties)) {
    const variable = `IOTHUB_PROP_${name.toUpperCase().replace(/[^A-Z0-9_]/g, '_')}`;
    variables[variable] ??= harmless(value);
  }
  return variables;
}

/** One line without control characters, so that `env | grep` and a log cannot be led astray by a message. */
function harmless(value: string): string {
  return value.toWellFormed().replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, ' ');
}

function isoTime(ms: number | undefined): string | undefined {
  if (ms === undefined || !Number.isFinite(ms)) return undefined;
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? undefined : date.toISOString();
}

function refusal(event: HandlerEvent, variables: Record<string, string>): string | undefined {
  // C programs end a string at NUL: what this agent and the program read would not be the same.
  const culprit = textsOf(event).find(([, value]) => value.includes('\0'));
  if (culprit !== undefined) return `${culprit[0]} contains a NUL character`;
  for (const [name, value] of Object.entries(variables)) {
    const bytes = Buffer.byteLength(name) + Buffer.byteLength(value) + 2;
    if (bytes > longestVariableBytes) return `too large for a program's environment: ${name.slice(0, 80)}`;
  }
  return undefined;
}

function textsOf(event: HandlerEvent): [what: string, value: string][] {
  const texts: [string, string][] = Object.entries(event.properties).flatMap(
    ([name, value]): [string, string][] => [
      ['the name of a property', name],
      ['a property', value],
    ],
  );
  for (const [name, value] of Object.entries(event)) {
    if (typeof value === 'string') texts.push([name, value]);
  }
  return texts;
}
