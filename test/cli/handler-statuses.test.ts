import { chmod } from 'node:fs/promises';

import { expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, ToolProcess } from './tool.js';

/** Each way in which a program can end, and the status of a method or the `ac` of a desired property. */
interface Ending {
  name: string;
  /** Shell text; absent for a file that is no program. */
  text?: string;
  status: number;
  /** Keys of the handler. */
  more?: string;
}
const exits = (status: number, ...codes: number[]): Ending[] =>
  codes.map((code) => ({ name: `exit ${code}`, text: `exit ${code}`, status }));
const endings: Ending[] = [
  ...exits(200, 0),
  ...exits(400, 64, 65, 66, 67, 76),
  ...exits(403, 77),
  ...exits(500, 1, 2, 68, 70, 72, 73, 78, 100, 125, 128, 255),
  ...exits(501, 126, 127),
  ...exits(503, 69, 71, 74, 75),
  { name: 'exit 0 = 202', text: 'exit 0', status: 202, more: 'exit = { 0 = 202 }' },
  { name: 'exit 0 = reject', text: 'exit 0', status: 500, more: 'exit = { 0 = "reject" }' },
  { name: 'exit 4 = accept', text: 'exit 4', status: 200, more: 'exit = { 4 = "accept" }' },
  { name: 'exit 12 in a range', text: 'exit 12', status: 503, more: 'exit = { 10-19 = "release" }' },
  { name: 'SIGSEGV', text: 'kill -SEGV $$', status: 500 },
  { name: 'SIGKILL', text: 'kill -KILL $$', status: 500 },
  { name: 'timeout', text: 'sleep 60', status: 504, more: 'timeout = "300ms"' },
  {
    name: 'timeout = reject',
    text: 'sleep 60',
    status: 504,
    more: 'timeout = "300ms"\non_timeout = "reject"',
  },
  { name: 'stdin closed', text: 'exec 0<&-; exit 0', status: 200 },
  { name: 'stdout closed', text: 'exec 1>&-; exit 0', status: 200 },
  { name: 'interpreter is missing', status: 501 },
  { name: 'not executable', status: 501 },
  { name: 'writable by everyone', text: 'exit 0', status: 501 },
  { name: 'not there', status: 501 },
];
const wanted = endings.map(({ name, status }) => [name, status]);

/** An agent with a handler for each ending, which takes the method, or the desired property, of its number: `h0` … */
async function startAgent(on: 'method' | 'twin') {
  const hub = await startHub();
  const folder = await Folder.make();
  const handlers = await Promise.all(
    endings.map(async ({ name, text, more = '' }, n) => {
      const file = `h${n}`;
      if (text !== undefined) await folder.script(file, `cat >/dev/null; ${text}`);
      if (name === 'interpreter is missing') await folder.write(file, '#!/no/such/thing\n', 0o700);
      if (name === 'not executable') await folder.write(file, '#!/bin/sh\n', 0o600);
      if (name === 'writable by everyone') await chmod(`${folder.path}/${file}`, 0o777);
      const key = on === 'method' ? 'method' : 'path';
      return `[[handlers]]\nname = "${name}"\non = "${on}"\nexec = ["./${file}"]\nmatch = { ${key} = "${file}" }\n${more}\n`;
    }),
  );
  const config = await folder.write('agent.toml', `[commands]\nconcurrency = 8\n${handlers.join('')}`);
  const env = await environmentOf(hub, device, folder);
  const agent = new ToolProcess('iothub-device', ['run', '--config', config], { env, cwd: folder.path });
  return {
    hub,
    async [Symbol.asyncDispose]() {
      await agent[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

test('what the caller of a direct method gets, for each way in which its handler can end', async () => {
  await using it = await startAgent('method');
  const statuses = await Promise.all(
    endings.map(async ({ name }, n) => {
      const call = { name: `h${n}`, payload: 'null', responseTimeoutMs: 25_000, connectTimeoutMs: 20_000 };
      const result = await it.hub.device(device).methods.call(call);
      return [name, result.result === 'answered' ? result.status : result.result];
    }),
  );
  expect(statuses).toEqual(wanted);
});

test('what is reported of a desired property, for each way in which its handler can end', async () => {
  await using it = await startAgent('twin');
  const { twin } = it.hub.device(device);
  twin.patch({ desired: Object.fromEntries(endings.map((_, n) => [`h${n}`, n])) }, it.hub.now());
  await it.hub.waitFor(() => Object.keys(twin.reported.properties).length === endings.length, {
    timeoutMs: 25_000,
  });
  const reported = twin.reported.properties as Record<string, { ac: number; av: number; value?: number }>;
  expect(endings.map(({ name }, n) => [name, reported[`h${n}`]!.ac])).toEqual(wanted);
  // Only what was taken is reported as the value.
  for (const [n, { status }] of endings.entries()) {
    expect(reported[`h${n}`]).toMatchObject(status < 300 ? { av: 2, value: n } : { av: 2 });
    expect('value' in reported[`h${n}`]!).toBe(status < 300);
  }
});
