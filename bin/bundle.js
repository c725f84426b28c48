'use strict';
const { readFileSync, renameSync, writeFileSync } = require('node:fs');
const { createRequire } = require('node:module');
const { pathToFileURL } = require('node:url');
const { Script } = require('node:vm');

/**
 * Runs a CommonJS bundle and returns what it exports. Beside it lies what V8 made of it in an earlier run, which saves
 * most of the compiling; V8 refuses what another Node.js made, and compiles as ever.
 *
 * @param {string} file
 * @param {{ remembers: boolean }} run whether this run is a good one to make that of, should there be none
 */
exports.runBundle = (file, { remembers }) => {
  const cache = `${file}.cache`;
  const script = new Script(
    `(function (module, require, bundleUrl, importFile) {${readFileSync(file, 'latin1')}\n})`, // ASCII, says esbuild
    { filename: file, cachedData: readIfThere(cache) },
  );
  // At the end, for V8 keeps what it has compiled by then.
  if (remembers && script.cachedDataRejected !== false) {
    process.once('exit', () => replaceIfAllowed(cache, script.createCachedData()));
  }
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

/** Not in an installation that belongs to someone else, or on a disk that is read-only: it goes without. */
function replaceIfAllowed(file, data) {
  try {
    writeFileSync(`${file}.${process.pid}`, data);
    renameSync(`${file}.${process.pid}`, file);
  } catch {
    // The next run compiles again.
  }
}
