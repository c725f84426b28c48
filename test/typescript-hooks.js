import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import ts from 'typescript';

// Both ways of registering hooks take these: where `next` answers with a promise, it is handed on.

export function resolve(specifier, context, next) {
  const isRelative = /^\.\.?\//.test(specifier) && context.parentURL !== undefined;
  const source = specifier.replace(/\.js$/, '.ts');
  const found = isRelative && source !== specifier && existsSync(new URL(source, context.parentURL));
  return next(found ? source : specifier, context);
}

export function load(url, context, next) {
  if (!url.endsWith('.ts')) return next(url, context);
  const fileName = fileURLToPath(url);
  const { outputText } = ts.transpileModule(readFileSync(fileName, 'utf8'), {
    fileName,
    compilerOptions: {
      target: ts.ScriptTarget.ES2022,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: true,
      inlineSourceMap: true,
    },
  });
  return { format: 'module', source: outputText, shortCircuit: true };
}
