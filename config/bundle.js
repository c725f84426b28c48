/**
 * Makes one file of the device tool, `dist/cli/iothub-device.cjs`, which `bin/iothub-device.js` starts with a code
 * cache (`code-cache.js`): a hundred small modules take much longer to find and to compile than to run.
 */
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const bundle = join(root, 'dist/cli/iothub-device.cjs');

const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: ['dist/cli/main.js'],
  outfile: `${bundle}.new`,
  bundle: true,
  platform: 'node',
  format: 'cjs',
  target: 'node20',
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
  ],
  // What is compiled from a cache cannot import; `runBundle` gives it these.
  supported: { 'dynamic-import': false },
  plugins: [
    { name: 'import-file', setup: lendImport },
    { name: 'commander', setup: spareChildProcess },
  ],
  define: { 'import.meta.url': 'bundleUrl' },
  logLevel: 'warning',
  metafile: true,
});
writeFileSync(`${bundle}.licenses.txt`, licenses(Object.keys(metafile.inputs)).join('\n\n'));
if (readIfThere(bundle)?.equals(readFileSync(`${bundle}.new`)) !== true) {
  rmSync(`${bundle}.cache`, { force: true });
  renameSync(`${bundle}.new`, bundle);
} else {
  rmSync(`${bundle}.new`);
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
