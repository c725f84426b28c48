/**
 * Imports a module that is named at run time. Apart, because code that is compiled from a code cache cannot import:
 * there, `bin/bundle.js` lends its own `import`.
 */
export function importFile(url: string): Promise<unknown> {
  return import(url);
}
