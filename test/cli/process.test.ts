import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

/*
 * What only a real process shows: signals, pipes whose reader leaves, full disks, and what is left open at the end.
 */

const root = join(import.meta.dirname, '../..');
const cli = join(root, 'dist/cli');

/** A program that runs `body` as the action of a subcommand, with all that `main` puts around it. */
function program(body: string): string[] {
  const text = `
    import { Subcommand } from '${cli}/help.js';
    import { tools } from '${cli}/subcommands.js';
    import { main } from '${cli}/main.js';
    import { setTimeout as delay } from 'node:timers/promises';
    const act = (io) => new Subcommand('act').action(async () => { ${body} });
    tools['iothub-device'].subcommands = [{ name: 'act', summary: '', load: async () => act }];
    process.argv = ['node', 'iothub-device', 'act'];
    await main('iothub-device');
  `;
  return ['--input-type=module', '-e', text];
}

interface Ended {
  code: number | null;
  signal: string | null;
  out: string;
  err: string;
}

interface Started {
  child: ChildProcess;
  ended: Promise<Ended>;
  /** Resolves when the word has come out of standard output. */
  said: (word: string) => Promise<void>;
}

function watch(child: ChildProcess): Started {
  const text = { out: '', err: '' };
  child.stdout?.setEncoding('utf8').on('data', (chunk: string) => (text.out += chunk));
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => (text.err += chunk));
  const ended = once(child, 'close').then(([code, signal]) => ({
    code: code as number | null,
    signal: signal as string | null,
    ...text,
  }));
  return { child, ended, said: (word) => expect.poll(() => text.out, { timeout: 20_000 }).toContain(word) };
}

function start(body: string, env = process.env): Started {
  return watch(spawn(process.execPath, program(body), { env }));
}

test('an exit code is that of the command, and what it left open does not keep the process', async () => {
  const { ended } = start('setInterval(() => {}, 1000); io.exitCode = 65;');
  expect(await ended).toMatchObject({ code: 65, err: '' });
});

test('standard input that was opened and not read does not keep the process either', async () => {
  const { ended } = start(`io.stdin.once('readable', () => {}); io.stdin.read();`);
  expect((await ended).code).toBe(0);
});

test('when the reader of standard output leaves, the command is told and ends well', async () => {
  const { child, said, ended } = start(`
    let lines = 0;
    while (!io.stdout.readerGone.aborted) { await io.stdout.write('line ' + lines++ + '\\n'); await delay(1); }
    await io.stdout.write('to nobody');
  `);
  await said('line 3');
  child.stdout?.destroy();
  expect(await ended).toMatchObject({ code: 0, err: '' });
});

test('writing waits for a slow reader instead of filling the memory', async () => {
  const child = spawn(
    process.execPath,
    program(`
      let written = 0;
      const all = (async () => { for (; written < 3000; written++) await io.stdout.write('x'.repeat(10_000)); })();
      await delay(300);
      await io.stderr.write(String(written < 1000));
      await all;
    `),
  );
  // Standard output is read only once the program has said how far it came.
  await once(child.stderr, 'readable');
  const { code, out, err } = await watch(child).ended;
  expect([code, err, out.length]).toEqual([0, 'true', 30_000_000]);
});

test.skipIf(!existsSync('/dev/full'))(
  'a full disk under standard output is exit 74, not silence',
  async () => {
    const command = [
      '-c',
      '"$0" "$@" > /dev/full',
      process.execPath,
      ...program(`await io.stdout.write('data');`),
    ];
    expect(await watch(spawn('/bin/sh', command)).ended).toMatchObject({
      code: 74,
      err: expect.stringMatching(/^error: writing failed: .*ENOSPC/),
    });
  },
);

test('a command that does not ask for signals is ended by them', async () => {
  const { child, said, ended } = start(`process.stdout.write('ready'); await delay(60_000);`);
  await said('ready');
  child.kill('SIGTERM');
  expect(await ended).toMatchObject({ code: null, signal: 'SIGTERM' });
});

test.each([
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const)('%s that runs through a command is exit %i without a word', async (signal, code) => {
  const { child, said, ended } = start(`
    const { stop } = io;
    process.stdout.write('ready');
    await delay(60_000, undefined, { signal: stop });
  `);
  await said('ready');
  child.kill(signal);
  expect(await ended).toMatchObject({ code, err: '' });
});

test('a command may finish what it does after the first signal, and exit as it likes', async () => {
  const { child, said, ended } = start(`
    const { stop } = io;
    process.stdout.write('ready');
    await delay(60_000, undefined, { signal: stop }).catch(() => {});
    await io.stderr.write('drained');
  `);
  await said('ready');
  child.kill('SIGTERM');
  expect(await ended).toMatchObject({ code: 0, err: 'drained' });
});

test('the second signal ends a command that hangs at its end', async () => {
  const { child, said, ended } = start(`
    io.stop.addEventListener('abort', () => process.stdout.write('stopping'));
    io.now.addEventListener('abort', () => process.stderr.write('now'));
    process.stdout.write('ready');
    await delay(600_000);
  `);
  await said('ready');
  child.kill('SIGINT');
  await said('stopping');
  child.kill('SIGINT');
  expect(await ended).toMatchObject({ code: 130, err: 'now' });
});

test('P4: an error that nobody caught ends the process with 70, without the secrets in it', async () => {
  const thrown = await start(`
    setTimeout(() => { throw new Error('SharedAccessKey=c2VjcmV0a2V5'); });
    await delay(60_000);
  `).ended;
  expect(thrown.code).toBe(70);
  expect(thrown.err).toContain('error: this is a bug: SharedAccessKey=[secret]');
  expect(thrown.err).not.toContain('c2VjcmV0a2V5');
  const rejected = await start(`void Promise.reject(new Error('lost')); await delay(60_000);`).ended;
  expect(rejected).toMatchObject({ code: 70, err: expect.stringContaining('this is a bug: lost') });
});

test('DEBUG and NODE_TLS_REJECT_UNAUTHORIZED have no effect, and the second is said', async () => {
  const env = { ...process.env, DEBUG: '*', NODE_TLS_REJECT_UNAUTHORIZED: '0' };
  const body = `await io.stdout.write(JSON.stringify([process.env.DEBUG, process.env.NODE_TLS_REJECT_UNAUTHORIZED]));`;
  const { out, err } = await start(body, env).ended;
  expect(JSON.parse(out)).toEqual([null, null]);
  expect(err).toMatch(/^warning: NODE_TLS_REJECT_UNAUTHORIZED is ignored; .* --ca FILE\n$/);
});

test('an error is told by the exit code when nobody reads standard error any more', async () => {
  const { child, ended } = start(`await delay(50); throw new Error('x');`);
  child.stderr?.destroy();
  expect((await ended).code).toBe(70);
});
