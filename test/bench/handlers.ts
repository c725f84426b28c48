/**
 * What a command costs from its arrival to its outcome on disk, by the form of its handler; the handler does nothing.
 *
 *     node --import ./test/typescript.js test/bench/handlers.ts [COMMANDS] [DIRECTORY]
 *
 * `alone`: one after the other, so that the time of each is seen. `at once`: four in hand, as the agent has them.
 * The ledger is the durable one, and DIRECTORY should be on the disk in question.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { moduleProcess } from '../../src/cli/module-process.js';
import { createDispatcher } from '../../src/handlers/dispatch.js';
import type { Handler } from '../../src/handlers/handler.js';
import { loadModule, moduleHandler } from '../../src/handlers/module.js';
import { programHandler } from '../../src/handlers/program.js';
import { streamHandler } from '../../src/handlers/stream.js';
import { silentLog } from '../../src/log.js';
import type { Command } from '../../src/model.js';
import { openStore } from '../../src/store/store.js';

const [commands = '300', parent = tmpdir()] = process.argv.slice(2);
const directory = await mkdtemp(join(parent, 'iothub-bench-'));
const inbox = { maximumAttempts: 3, maximumAgeMs: 3_600_000 };

const file = async (name: string, text: string): Promise<string> => {
  const path = join(directory, name);
  await writeFile(path, text, { mode: 0o755 });
  return path;
};
const sh = await file('sh', '#!/bin/sh\n');
const python = await file('py', '#!/usr/bin/env python3\n');
const module = await file('module.mjs', "export default { on: 'command', handle() {} };\n");
const echo = await file(
  'stream.py',
  `#!/usr/bin/env python3
import json, sys
for line in sys.stdin:
    print(json.dumps({"id": json.loads(line).get("id"), "outcome": "accept"}), flush=True)
`,
);
const forms: [name: string, make: () => Handler | Promise<Handler>][] = [
  ['program: /bin/true', () => programHandler({ name: 'h', file: '/bin/true' })],
  ['program: sh', () => programHandler({ name: 'h', file: sh })],
  ['program: python3', () => programHandler({ name: 'h', file: python })],
  ['stream: python3', () => streamHandler({ name: 'h', file: echo, log: silentLog })],
  ['module', async () => moduleHandler(await loadModule(module), { name: 'h' })],
  [
    'module, isolated',
    () => {
      const [node, ...args] = moduleProcess;
      const started = { file: node, args: [...args, module], checkPermissions: false, exactBodies: true };
      return streamHandler({ name: 'h', ...started, log: silentLog });
    },
  ],
  ['module, inbox', async () => moduleHandler(await loadModule(module), { name: 'h', inbox })],
];

let sequenceNumber = 0;
const nextCommand = (): Command => ({
  deviceId: 'dev1',
  messageId: `m${String(++sequenceNumber)}`,
  sequenceNumber,
  deliveryCount: 0,
  lockToken: 'lock',
  properties: {},
  body: Buffer.alloc(256, 'x'),
});

print('| handler | p50 ms | p99 ms | alone, commands/s | four at once, commands/s |');
print('|---|---|---|---|---|');
for (const [name, make] of forms) {
  await using store = await openStore({
    directory: await mkdtemp(join(directory, 'store-')),
    inbox: { maximumWaiting: 100_000 },
    ledger: { replyMessage: () => undefined },
  });
  const handler = await make();
  await using dispatcher = createDispatcher({
    handlers: [handler],
    order: 'none',
    ledger: store.ledger,
    inbox: store.inbox,
    log: silentLog,
  });
  const one = async (): Promise<number> => {
    const startedAt = performance.now();
    dispatcher.settled(await dispatcher.handle(nextCommand()));
    return performance.now() - startedAt;
  };
  for (let n = 0; n < 10; n++) await one();
  const times: number[] = [];
  const aloneAt = performance.now();
  for (let n = 0; n < Number(commands); n++) times.push(await one());
  const alone = Number(commands) / (performance.now() - aloneAt);
  const atOnceAt = performance.now();
  let left = Number(commands);
  await Promise.all(
    Array.from({ length: 4 }, async () => {
      while (left-- > 0) await one();
    }),
  );
  const atOnce = Number(commands) / (performance.now() - atOnceAt);
  times.sort((a, b) => a - b);
  const at = (share: number): string => (times[Math.floor(times.length * share)] ?? 0).toFixed(2);
  print(
    `| ${name} | ${at(0.5)} | ${at(0.99)} | ${Math.round(alone * 1000)} | ${Math.round(atOnce * 1000)} |`,
  );
}
await rm(directory, { recursive: true });

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
