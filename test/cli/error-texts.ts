import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import ts from 'typescript';

/** An error as the sources have it: `…` stands for what is only known when it happens. */
export interface ErrorText {
  /** Of `AgentError`; undefined for a text that another error will carry. */
  code: string | undefined;
  text: string;
  hint: string | undefined;
}

const src = join(import.meta.dirname, '../../src');

/** Every error that the sources make with a text of their own, sorted, each once. */
export function errorTexts(): ErrorText[] {
  const found = new Map<string, ErrorText>();
  for (const file of readdirSync(src, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts')) continue;
    const source = ts.createSourceFile(file, readFileSync(join(src, file), 'utf8'), ts.ScriptTarget.ES2023);
    visit(source, (node) => {
      const error = ts.isNewExpression(node) ? errorOf(node, source) : undefined;
      if (error) found.set(`${error.text}\n${error.hint ?? ''}`, error);
    });
  }
  return [...found.values()].sort((a, b) => (a.text < b.text ? -1 : 1));
}

function visit(node: ts.Node, see: (node: ts.Node) => void): void {
  see(node);
  ts.forEachChild(node, (child) => {
    visit(child, see);
  });
}

function errorOf(node: ts.NewExpression, source: ts.SourceFile): ErrorText | undefined {
  const name = node.expression.getText(source);
  const [first, second, third] = node.arguments ?? [];
  if (name === 'SyntaxError' || name === 'InvalidArgumentError') {
    const text = textOf(first);
    return text === undefined ? undefined : { code: undefined, text, hint: undefined };
  }
  const text = name === 'AgentError' ? textOf(second) : undefined;
  if (text === undefined) return undefined;
  return { code: textOf(first) ?? '…', text, hint: third && hintOf(third, source) };
}

function hintOf(options: ts.Expression, source: ts.SourceFile): string | undefined {
  if (!ts.isObjectLiteralExpression(options)) return undefined;
  const hint = options.properties.find((property) => property.name?.getText(source) === 'hint');
  return hint && ts.isPropertyAssignment(hint) ? textOf(hint.initializer) : undefined;
}

/** Undefined where nothing of it stands in the source. */
function textOf(node: ts.Expression | undefined): string | undefined {
  if (node === undefined) return undefined;
  if (ts.isStringLiteralLike(node)) return node.text;
  if (ts.isTemplateExpression(node)) {
    return node.head.text + node.templateSpans.map((span) => `…${span.literal.text}`).join('');
  }
  if (!ts.isBinaryExpression(node)) return undefined;
  return [node.left, node.right].map((part) => textOf(part) ?? '…').join('');
}
