'use strict';
const { readFileSync, writeFileSync } = require('node:fs');
const { createRequire } = require('node:module');
const { pathToFileURL } = require('node:url');
const { Script } = require('node:vm');

/**
 * Runs a CommonJS bundle and returns what it exports. Beside it lies what V8 made of it when it was built, which saves
 * most of the compiling; V8 refuses what another Node.js made, and compiles as ever.
 *
 * @param {string} file
 * @param {{ remember?: boolean }} [options] `remember`: keep what is compiled by the end of this process
 */
exports.runBundle = (file, { remember = false } = {}) => {
  const cache = `${file}.cache`;
  // ASCII, says esbuild.
  const script = new Script(readFileSync(file, 'latin1'), {
    filename: file,
    cachedData: remember ? undefined : readIfThere(cache),
  });
  if (remember) process.once('exit', () => writeFileSync(cache, script.createCachedData()));
  const module = {};
  script.runInThisContext()(module, createRequire(file), pathToFileURL(file).href, (url) => import(url));
  return module.exports;
};

function readIfThere(file) {
  try {
    return readFileSync(file);
  } catch {
    return undefined;
  }
}
