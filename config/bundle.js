/**
 * Makes one file of the device tool, `dist/cli/iothub-device.cjs`, which `bin/iothub-device.js` starts with a code
 * cache (`code-cache.js`): a hundred small modules take much longer to find and to compile than to run. `send`, which
 * scripts start again and again, has a file of its own with nothing of the other subcommands, and so has `run`, which
 * stays in memory.
 */
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const subcommands = [
  ...readdirSync(join(root, 'dist/cli/device'))
    .filter((file) => file.endsWith('.js'))
    .map((file) => `./device/${file}`),
  './completion/command.js',
];

await bundle('iothub-device.cjs');
for (const name of ['send', 'run']) {
  await bundle(`iothub-device-${name}.cjs`, ...subcommands.filter((file) => file !== `./device/${name}.js`));
}

/** `without`: modules, as the one that imports them names them, that the bundle does not get. */
async function bundle(name, ...without) {
  const file = join(root, 'dist/cli', name);
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['dist/cli/main.js'],
    outfile: `${file}.new`,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    // Half of it would be comments and indentation, and the whole is read at every start.
    minifyWhitespace: true,
    external: [
      // The other tools, which this one never loads.
      './service/*',
      './emulator/*',
      // Heavy and seldom used: loaded by themselves.
      '@peculiar/x509',
      'cli-progress',
      'prom-client',
      'reflect-metadata',
      'ws',
      ...without,
    ],
    // What is compiled from a cache cannot import; `runBundle` gives it these.
    supported: { 'dynamic-import': false },
    plugins: [
      { name: 'import-file', setup: lendImport },
      { name: 'commander', setup: spareChildProcess },
      { name: 'debug', setup: spareDebug },
    ],
    define: { 'import.meta.url': 'bundleUrl' },
    // The function that `runBundle` calls.
    banner: { js: '(function (module, require, bundleUrl, importFile) {' },
    footer: { js: '})' },
    logLevel: 'warning',
    metafile: true,
  });
  writeFileSync(`${file}.licenses.txt`, licenses(Object.keys(metafile.inputs)).join('\n\n'));
  if (readIfThere(file)?.equals(readFileSync(`${file}.new`)) !== true) {
    rmSync(`${file}.cache`, { force: true });
    renameSync(`${file}.new`, file);
  } else {
    rmSync(`${file}.new`);
  }
}

function readIfThere(file) {
  return existsSync(file) ? readFileSync(file) : undefined;
}

function lendImport({ onResolve, onLoad }) {
  onResolve({ filter: /\/import-file\.js$/ }, () => ({ path: 'import-file', namespace: 'lent' }));
  onLoad({ filter: /.*/, namespace: 'lent' }, () => ({
    contents: 'const lent = importFile; export { lent as importFile };',
  }));
}

/** Commander could start subcommands as programs. Ours are none, and Node.js takes 3 ms to load what that needs. */
function spareChildProcess({ onResolve, onLoad }) {
  onResolve({ filter: /^node:child_process$/ }, ({ importer }) =>
    importer.includes('/commander/') ? { path: 'child_process', namespace: 'spared' } : undefined,
  );
  onLoad({ filter: /.*/, namespace: 'spared' }, () => ({ contents: '' }));
}

/**
 * rhea logs through `debug`, tokens in clear text among the rest. It is never switched on here (`no-debug.ts`), and Node.js takes
 * 2 ms to load what it needs.
 */
function spareDebug({ onResolve, onLoad }) {
  onResolve({ filter: /^debug$/ }, () => ({ path: 'debug', namespace: 'silent' }));
  onLoad({ filter: /.*/, namespace: 'silent' }, () => ({
    contents: 'module.exports = () => Object.assign(() => undefined, { enabled: false });',
  }));
}

/** What the packages whose code is in the bundle want to be said with it. */
function licenses(inputs) {
  const packages = new Set(
    inputs.flatMap((input) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1] ?? []),
  );
  return [...packages].sort().map((name) => {
    const folder = join(root, 'node_modules', name);
    const file = readdirSync(folder).find((entry) => /^licen[sc]e/i.test(entry));
    return `${name}\n${file === undefined ? readLicenseName(folder) : readFileSync(join(folder, file), 'utf8')}`;
  });
}

function readLicenseName(folder) {
  return JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')).license;
}
