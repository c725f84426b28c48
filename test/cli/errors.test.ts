import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { run } from '../../src/cli/main.js';
import type { ToolName } from '../../src/cli/subcommands.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { device, startHub } from '../amqp/hub.js';
import { listen } from '../tcp-server.js';
import { errorTexts } from './error-texts.js';
import { fakeIo } from './fake-io.js';
import { Folder } from './tool.js';

/*
 * Errors as people read them: what these command lines print, then every other text of the sources. All of it is in a
 * golden file, and a change of one shows in its difference:
 *
 *     npx vitest run --config test/vitest.config.ts test/cli/errors.test.ts -u
 */

/** With a connection string in the environment. */
const wrong = `
iothub-device
iothub-device sned
iothub-device send --dat x
iothub-device send --data
iothub-device send --data x --timeout 30
iothub-device send --data x --output xml
iothub-device send --data x --connection-string HostName=h;SharedAccessKey=abc
iothub-device send --data x --proxy http://me:secret@proxy
iothub-device send --data x --prop room
iothub-device send --data x --data-file y
iothub-device send --data x --expires soon
iothub-device send --data-file none
iothub-device send --data-file FOLDER
iothub-device send --data x --ca none.pem
iothub-device send --data x --ca FOLDER/bad.toml
iothub-device send --data x --config none.toml
iothub-device send --data x --host h
iothub-device send --data x --transport amqp --proxy http://localhost:1
iothub-device run
iothub-device run --config FOLDER/bad.toml
iothub-device run --config FOLDER/empty.toml
iothub-device run --config FOLDER/half.toml
iothub-device status --socket FOLDER/none.sock
iothub-device spool list --directory FOLDER/none
iothub-device spool show 0
iothub-device handler new ../x
iothub-device handler test none
iothub-device config init FOLDER/bad.toml
iothub-device method serve
iothub-device twin report
iothub-device twin report x
iothub-device completion tcsh
iothub-service send
iothub-service send dev1
iothub-service monitor --from yesterday
iothub-service device add
iothub-emulator start --port x
iothub-emulator wait --timeout 100ms --url http://127.0.0.1:1
iothub-emulator ctl fault nowhere refuse
iothub-emulator ctl jump far
`
  .trim()
  .split('\n');

/** Without one. */
const withoutIdentity = `
iothub-device send --data x
iothub-device send --data x --connection-string-file FOLDER/open.cs
iothub-device send --data x --connection-string-file FOLDER/half.cs
iothub-device send --data x --connection-string-file none.cs
iothub-device send --data x --host h
iothub-device send --data x --module-id m
iothub-device send --data x --host localhost --device-id d
iothub-device send --data x --host localhost --device-id d --key k.pem
iothub-device send --data x --host localhost --device-id d --cert none.pem
iothub-service device list
`
  .trim()
  .split('\n');

let folder: Folder;
let hub: Emulator;
beforeAll(async () => {
  folder = await Folder.make();
  hub = await startHub({});
  await folder.write('bad.toml', 'hubb = 1\n[spool]\nmax_szie = 1\n');
  await folder.write('empty.toml', '');
  await folder.write('half.toml', '[log]\nlevel = "in');
  await folder.write('half.cs', 'HostName=h;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==');
  await folder.write('open.cs', 'HostName=h;DeviceId=d;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==', 0o644);
  await folder.write('ca.pem', hub.ca);
  return async () => {
    await hub[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  };
});

test('errors read as they should', async () => {
  const produced = [
    ...(await Promise.all(wrong.map((line) => print(line, someone)))),
    ...(await Promise.all(withoutIdentity.map((line) => print(line)))),
    ...(await Promise.all(Object.keys(hubs).map(fromHub))),
  ].join('\n');
  const others = errorTexts().filter(({ text }) => !pattern(text).test(produced));
  const listed = others.map(({ code, text, hint }) => {
    const lines = [text, ...(hint?.split('\n') ?? [])].join('\n  ');
    return code === undefined ? lines : `${code}: ${lines}`;
  });
  await expect(`${produced}\n${'='.repeat(100)}\n\n${listed.join('\n')}\n`).toMatchFileSnapshot(
    join(import.meta.dirname, 'golden/errors.txt'),
  );
});

test('no error ends with a full stop, begins like a sentence, or says that something failed without saying what', () => {
  const texts = errorTexts();
  expect(texts.length).toBeGreaterThan(200);
  // A name may begin with a capital, a sentence may not.
  const names = /^(?:[A-Z]{2,}|AMQP|HostName|DeviceId|ModuleId|Content|Proxy-|X|TLS|\p{Lu}\w*=|…)/u;
  for (const { text } of texts) {
    expect(text).not.toMatch(/[.!]$/);
    if (!names.test(text)) expect(text).not.toMatch(/^\p{Lu}[\p{Ll} ]/u);
    expect(text).not.toMatch(/^(an? )?(unknown |unexpected )?(error|failure)( occurred)?$/i);
  }
});

/** An identity that is never used. */
const someone = { IOTHUB_DEVICE_CONNECTION_STRING: at(1) };

/** What a command line prints on standard error, and its exit code. */
async function print(line: string, env: Record<string, string> = {}): Promise<string> {
  const [tool = '', ...args] = line.split(' ').map((word) => word.replace('FOLDER', folder.path));
  const io = fakeIo({ env: { XDG_CONFIG_HOME: '/nonexistent', XDG_STATE_HOME: folder.path, ...env } });
  const code = await run(tool as ToolName, args, io);
  const text = io.err.startsWith('Usage:') ? '(its help page)\n' : io.err;
  return `$ ${line}\n${alike(text)}exit ${String(code)}\n`;
}

/** What differs from run to run. */
function alike(text: string): string {
  return text
    .replaceAll(folder.path, 'FOLDER')
    .replace(/localhost:\d{4,}/g, 'localhost:PORT')
    .replace(/127\.0\.0\.1:\d{4,}/g, '127.0.0.1:PORT')
    .replace(/:\d{4,}\b/g, ':PORT')
    .replace(/(?<=says )\d{4}-\d\d-\d\d[T ][\d:.]+Z?/g, 'TIME')
    .replace(/(?<=within )\d+(\.\d+)? ?ms\b/g, 'N ms');
}

/** Hubs that say no, or are none; to each a device sends. */
const hubs: Record<string, () => Promise<{ connectionString: string; flags?: string }>> = {
  'where nobody listens': async () => {
    await using server = await listen(() => undefined);
    return { connectionString: at(server.port) };
  },
  'where a web server is': async () => {
    const server = await listen((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'));
    open.push(server);
    return { connectionString: at(server.port) };
  },
  'whose certificate nobody trusts': () =>
    Promise.resolve({ connectionString: hub.deviceConnectionString(device) }),
  'that wants another key': () => {
    const key = 'SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==';
    const connectionString = hub.deviceConnectionString(device).replace(/SharedAccessKey=[^;]+/, key);
    return Promise.resolve({ connectionString, flags: '--ca FOLDER/ca.pem' });
  },
  'that has no such device': () =>
    Promise.resolve({
      connectionString: hub.deviceConnectionString(device).replace(device, 'nobody'),
      flags: '--ca FOLDER/ca.pem',
    }),
};

const open: AsyncDisposable[] = [];
afterAll(() => Promise.all(open.map((one) => one[Symbol.asyncDispose]())));

async function fromHub(name: string): Promise<string> {
  const { connectionString, flags = '' } = await hubs[name]!();
  const line = `iothub-device send --transport amqp --data x ${flags}`.trim();
  const text = await print(line, { IOTHUB_DEVICE_CONNECTION_STRING: connectionString });
  return text.replace('\n', `    # to a hub ${name}\n`);
}

function at(port: number): string {
  return `HostName=localhost:${String(port)};DeviceId=d;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==`;
}

/** The text as it may come out. */
function pattern(text: string): RegExp {
  const parts = text.split('…').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`(?:error: |[:;] |^ +)${parts.join('[^\\n]*?')}(?:$|;| \\()`, 'm');
}
