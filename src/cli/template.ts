import type { HubEvent } from '../amqp/event-message.js';
import { AgentError } from '../errors.js';
import type { Command, MessageFields } from '../model.js';

/**
 * Templates of `--format`: text with `{name}` for a part of the message, `{prop.NAME}` for a property, `{{` for a
 * brace, and the escapes `\n`, `\t`, `\0`, `\\`. The body goes out as it is, byte for byte.
 */
export type Template<Message> = readonly (string | Part<Message>)[];

/** What stands for a name in braces. */
type Part<Message> = (message: Message) => string | Buffer;

interface Received extends MessageFields {
  deviceId?: string | undefined;
  moduleId?: string | undefined;
  enqueuedAt?: number | undefined;
}

const parts: Record<string, Part<Received>> = {
  body: ({ body }) => body,
  messageId: ({ messageId }) => messageId ?? '',
  correlationId: ({ correlationId }) => correlationId ?? '',
  userId: ({ userId }) => userId ?? '',
  contentType: ({ contentType }) => contentType ?? '',
  deviceId: ({ deviceId }) => deviceId ?? '',
  moduleId: ({ moduleId }) => moduleId ?? '',
  enqueuedAt: ({ enqueuedAt }) => (enqueuedAt === undefined ? '' : new Date(enqueuedAt).toISOString()),
};

export const commandParts: Record<string, Part<Command>> = {
  ...parts,
  deliveryCount: ({ deliveryCount }) => String(deliveryCount),
};

export const eventParts: Record<string, Part<HubEvent>> = {
  ...parts,
  source: ({ source }) => source ?? '',
  partition: ({ partition }) => partition,
  offset: ({ offset }) => offset,
  sequenceNumber: ({ sequenceNumber }) => String(sequenceNumber),
};

export function parseTemplate<Message extends Received>(
  text: string,
  named: Record<string, Part<Message>>,
): Template<Message> {
  return [...text.matchAll(/\{\{|\}\}|\{([^{}]*)\}|\\[nt0\\]|[^{}\\]+|[{}\\]/g)].map(([token, name]) => {
    if (name !== undefined) return partNamed(name, named);
    return literals[token] ?? token;
  });
}

export function fillTemplate<Message>(template: Template<Message>, message: Message): Buffer {
  return Buffer.concat(
    template.map((part) => {
      const value = typeof part === 'string' ? part : part(message);
      return typeof value === 'string' ? Buffer.from(value) : value;
    }),
  );
}

const literals: Record<string, string> = {
  '{{': '{',
  '}}': '}',
  '\\n': '\n',
  '\\t': '\t',
  '\\0': '\0',
  '\\\\': '\\',
};

function partNamed<Message extends Received>(
  name: string,
  named: Record<string, Part<Message>>,
): Part<Message> {
  const property = /^prop\.(.+)$/.exec(name)?.[1];
  if (property !== undefined)
    return ({ properties }) => (Object.hasOwn(properties, property) ? (properties[property] ?? '') : '');
  const part = Object.hasOwn(named, name) ? named[name] : undefined;
  if (part !== undefined) return part;
  throw new AgentError('usage', `--format has no {${name}}`, {
    hint: `it has {${Object.keys(named).join('} {')}} and {prop.NAME}`,
  });
}
