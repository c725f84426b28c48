import { AgentError } from '../../errors.js';
import type { Command } from '../../model.js';

/**
 * Templates of `--format`: text with `{name}` for a part of the command, `{prop.NAME}` for a property, `{{` for a
 * brace, and the escapes `\n`, `\t`, `\0`, `\\`. The body goes out as it is, byte for byte.
 */
export type Template = readonly (string | ((command: Command) => string | Buffer))[];

const parts: Record<string, (command: Command) => string | Buffer> = {
  body: ({ body }) => body,
  messageId: ({ messageId }) => messageId ?? '',
  correlationId: ({ correlationId }) => correlationId ?? '',
  userId: ({ userId }) => userId ?? '',
  contentType: ({ contentType }) => contentType ?? '',
  deviceId: ({ deviceId }) => deviceId,
  moduleId: ({ moduleId }) => moduleId ?? '',
  enqueuedAt: ({ enqueuedAt }) => (enqueuedAt === undefined ? '' : new Date(enqueuedAt).toISOString()),
  deliveryCount: ({ deliveryCount }) => String(deliveryCount),
};

export function parseTemplate(text: string): Template {
  return [...text.matchAll(/\{\{|\}\}|\{([^{}]*)\}|\\[nt0\\]|[^{}\\]+|[{}\\]/g)].map(([token, name]) => {
    if (name !== undefined) return partNamed(name);
    return literals[token] ?? token;
  });
}

export function fillTemplate(template: Template, command: Command): Buffer {
  return Buffer.concat(
    template.map((part) => {
      const value = typeof part === 'string' ? part : part(command);
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

function partNamed(name: string): (command: Command) => string | Buffer {
  const property = /^prop\.(.+)$/.exec(name)?.[1];
  if (property !== undefined)
    return ({ properties }) => (Object.hasOwn(properties, property) ? (properties[property] ?? '') : '');
  const part = Object.hasOwn(parts, name) ? parts[name] : undefined;
  if (part !== undefined) return part;
  throw new AgentError('usage', `--format has no {${name}}`, {
    hint: `it has {${Object.keys(parts).join('} {')}} and {prop.NAME}`,
  });
}
