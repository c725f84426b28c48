import { createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { beforeAll, expect, test } from 'vitest';

import { exitCodes } from '../../src/cli/exit-codes.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { device, startHub } from '../amqp/hub.js';
import { environmentOf, type Finished, Folder, runTool, ToolProcess } from './tool.js';

/*
 * The table of `iothub-device help exit-codes`: each code once, from an installed command that is a process of its own.
 */

let hub: Emulator;
let folder: Folder;
let env: Record<string, string>;
beforeAll(async () => {
  hub = await startHub({});
  folder = await Folder.make();
  env = await environmentOf(hub, device, folder);
  return async () => {
    await hub[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  };
});

const own = (args: readonly string[], more: Record<string, string> = {}, input?: string): Promise<Finished> =>
  runTool('iothub-device', args, {
    cwd: folder.path,
    env: { ...env, ...more },
    ...(input === undefined ? {} : { input }),
  });
/** As a device of another hub. */
const at = (host: string): Record<string, string> => ({
  IOTHUB_DEVICE_CONNECTION_STRING: `HostName=${host};DeviceId=d;SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==`,
});
const hello = ['send', '--data', 'hello', '--timeout', '10s'];

const produced: Record<keyof typeof exitCodes, () => Promise<Finished>> = {
  ok: () => own(hello),
  usage: () => own(['send', '--dat', 'hello']),
  data: () => own(['send', '--ndjson'], {}, '{"body":\n'),
  'no-input': () => own(['send', '--data-file', 'none']),
  'no-device': () => runTool('iothub-service', ['send', 'nobody', '--data', 'x'], { env }),
  'host-unknown': () => own(hello, at('nowhere.invalid')),
  unavailable: async () => own(hello, at(`localhost:${String(await closedPort())}`)),
  bug: async () => {
    // A mistake of ours, put into the process before it starts.
    const mistake = await folder.write(
      'mistake.cjs',
      `Date.now = () => { throw new TypeError('no clock') };`,
    );
    return own(['sas'], { NODE_OPTIONS: `--require ${mistake}` });
  },
  'cannot-create': async () => own(['config', 'init', await folder.write('there.toml', '')]),
  io: () => own(['send', '--data-file', folder.path]),
  'try-again': async () => own(['handler', 'test', await folder.script('later', 'exit 75'), '--data', 'x']),
  protocol: () => own(hello, { IOTHUB_DEVICE_CA: '' }),
  refused: () =>
    own(hello, { IOTHUB_DEVICE_CONNECTION_STRING: withAnotherKey(hub.deviceConnectionString(device)) }),
  config: async () => own(['config', 'check', '--config', await folder.write('bad.toml', 'x = 1')]),
};

test.each(Object.entries(produced))('%s', async (name, run) => {
  const { code, out, err } = await run();
  expect(code, `${out}\n${err}`).toBe(exitCodes[name as keyof typeof exitCodes]);
  // What is no outcome on standard output is one error on standard error.
  if (code !== 0 && out === '') expect(err).toMatch(/^error: (?!error)/);
  expect(err).not.toMatch(/MDEyMzQ1/);
});

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('%s is %i', async (signal, code) => {
  const before = hub.record.of('connected').length;
  await using receive = new ToolProcess('iothub-device', ['receive'], { env });
  await hub.waitFor((record) => record.of('connected').length > before);
  receive.kill(signal);
  expect(await receive.ended()).toMatchObject({ code });
});

function withAnotherKey(connectionString: string): string {
  return connectionString.replace(/SharedAccessKey=[^;]+/, 'SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZg==');
}

async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
