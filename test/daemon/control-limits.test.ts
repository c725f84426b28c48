import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';

import { expect, test } from 'vitest';

import { jsonLines, startAgent, type ControlledAgent } from './agent-kit.js';

/** `IOTHUB_FAULTS=long`: ten thousand clients, a gigabyte. */
const isLong = process.env['IOTHUB_FAULTS'] === 'long';
const clients = isLong ? 10_000 : 600;
const longBytes = isLong ? 1024 ** 3 : 128 * 1024 ** 2;
const mebibyte = 1024 * 1024;

function memoryOf({ agent }: ControlledAgent): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${agent.pid}/status`, 'utf8'))?.[1]) * 1024;
}

function socketsOf({ agent }: ControlledAgent): number {
  const folder = `/proc/${agent.pid}/fd`;
  const isSocket = (descriptor: string) => {
    try {
      return readlinkSync(`${folder}/${descriptor}`).startsWith('socket:');
    } catch {
      return false; // closed meanwhile
    }
  };
  return readdirSync(folder).filter(isSocket).length;
}

/** A client that sends this and then nothing; it reads what it is told, unless it is told not to. */
async function client(it: ControlledAgent, head: string, { reads = true } = {}): Promise<Socket> {
  const socket = connect(it.socket);
  socket.on('error', () => undefined); // cut off, as some of them are to be
  if (reads) socket.resume();
  // EAGAIN: more of them wait than the agent has come to accept.
  await once(socket, 'connect').catch(() => undefined);
  if (head !== '') socket.write(head);
  return socket;
}

const post = (more: string) => `POST /v1/telemetry HTTP/1.1\r\nhost: agent\r\n${more}\r\n`;

test.each([
  ['say nothing', ''],
  ['stop within the head of a request', 'GET /v1/status HTTP/1.1\r\nx-'],
  ['announce a body that never comes', post('content-length: 1000\r\n')],
  [
    'open a stream and say no line',
    post('content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n'),
  ],
])(
  `${clients} clients that %s take no more than their share, and others are served`,
  async (_title, head) => {
    await using it = await startAgent();
    const before = { memory: memoryOf(it), sockets: socketsOf(it) };
    const crowd: Socket[] = [];
    let most = 0;
    for (let n = 0; n < clients; n++) {
      crowd.push(await client(it, head));
      if (n % 100 === 0) most = Math.max(most, socketsOf(it));
    }
    // EAGAIN here too, while those that came before wait to be accepted.
    const served = () => it.curl('/v1/status').then(({ status }) => status, String);
    await expect.poll(served, { timeout: 10_000 }).toBe(200);
    expect(most - before.sockets).toBeLessThan(300);
    expect(memoryOf(it) - before.memory).toBeLessThan(64 * mebibyte);
    for (const socket of crowd) socket.destroy();
    await expect.poll(async () => (await it.curl('/v1/telemetry?wait=hub', '-d', 'x')).status).toBe(200);
    await expect.poll(() => socketsOf(it)).toBeLessThan(before.sockets + 20);
  },
  120_000,
);

test('a gigabyte that is announced is refused before any of it comes', async () => {
  await using it = await startAgent();
  const file = await it.folder.write('large', '');
  await truncate(file, 1024 ** 3);
  const before = memoryOf(it);
  const { status, body } = await it.curl(
    '/v1/telemetry',
    '-X',
    'POST',
    '-T',
    file,
    '-w',
    '%{size_upload}\n%{http_code}',
  );
  const [answer = '', uploaded] = body.split('\n');
  expect([status, JSON.parse(answer)]).toMatchObject([400, { code: 'data' }]);
  expect(Number(uploaded)).toBeLessThan(mebibyte);
  expect(memoryOf(it) - before).toBeLessThan(32 * mebibyte);
});

test('a body that only turns out to be long is refused where it becomes so', async () => {
  await using it = await startAgent();
  const stream = request({ socketPath: it.socket, path: '/v1/telemetry', method: 'POST' });
  stream.on('error', () => undefined);
  const responded = once(stream, 'response') as Promise<[NodeJS.ReadableStream & { statusCode: number }]>;
  const chunk = Buffer.alloc(64 * 1024, 'x');
  let written = 0;
  const closed = new AbortController();
  stream.on('close', () => {
    closed.abort();
  });
  while (!closed.signal.aborted) {
    written += chunk.length;
    if (!stream.write(chunk)) await once(stream, 'drain', { signal: closed.signal }).catch(() => undefined);
  }
  const [{ statusCode }] = await responded;
  expect(statusCode).toBe(400);
  expect(written).toBeLessThan(4 * mebibyte);
});

test('a line without an end is refused at once, fills no memory, and what follows it is taken', async () => {
  await using it = await startAgent();
  const before = memoryOf(it);
  const stream = request({
    socketPath: it.socket,
    path: '/v1/telemetry',
    method: 'POST',
    headers: { 'content-type': 'application/x-ndjson' },
  });
  const responded = once(stream, 'response') as Promise<[NodeJS.ReadableStream]>;
  const chunk = Buffer.alloc(mebibyte, 'x');
  for (let n = 0; n < 4; n++) stream.write(chunk); // no message is as long as that, in any form
  const [response] = await responded;
  const answers = response[Symbol.asyncIterator]();
  expect(jsonLines(String((await answers.next()).value))).toMatchObject([
    { line: 1, outcome: 'failed', code: 'data' },
  ]);
  let most = 0;
  for (let sent = 4 * mebibyte; sent < longBytes; sent += mebibyte) {
    if (!stream.write(chunk)) await once(stream, 'drain');
    if (sent % (32 * mebibyte) === 0) {
      expect((await it.curl('/v1/status')).status).toBe(200);
      most = Math.max(most, memoryOf(it));
    }
  }
  stream.end('\n{"bodyText":"after"}\n');
  expect(jsonLines(String((await answers.next()).value))).toMatchObject([{ line: 2, outcome: 'queued' }]);
  expect(most - before).toBeLessThan(64 * mebibyte);
}, 120_000);

test('who is slow is let go: with a head, with a body, and with reading what it is told', async () => {
  await using it = await startAgent();
  const before = socketsOf(it);
  const lines = `{"bodyText":"x","messageId":"${'m'.repeat(120)}"}\n`.repeat(20_000);
  const stream = post(`content-type: application/x-ndjson\r\ncontent-length: ${String(lines.length)}\r\n`);
  const slow = [
    await client(it, 'GET /v1/status HTTP/1.1\r\nx-'),
    await client(it, post('content-length: 1000\r\n')),
    await client(it, stream + lines, { reads: false }),
  ];
  await expect.poll(() => socketsOf(it)).toBeGreaterThanOrEqual(before + 3);
  // Ten seconds for each; none of them closes its end.
  await expect.poll(() => socketsOf(it), { timeout: 50_000, interval: 250 }).toBeLessThanOrEqual(before);
  for (const socket of slow) socket.destroy();
  expect((await it.curl('/v1/status')).status).toBe(200);
}, 60_000);
