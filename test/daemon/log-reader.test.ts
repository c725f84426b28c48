import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { jsonLines, startAgent, type ControlledAgent } from './agent-kit.js';

const tool = join(import.meta.dirname, '../../bin/iothub-device.js');
const command = [process.execPath, '--use-openssl-ca', tool, 'run', '-vv'];

/** A terminal that somebody has stopped with ^S, and what runs in it. Prints the process id, and passes SIGTERM on. */
const stoppedTerminal = `
import os, pty, signal, subprocess, sys
master, slave = pty.openpty()
os.write(master, b'\\x13')
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=slave)
os.close(slave)
signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
print(child.pid, flush=True)
sys.exit(child.wait())
`;

/** A pipe that nobody reads. */
const unreadPipe = `
import os, signal, subprocess, sys
reader, writer = os.pipe()
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writer)
os.close(writer)
signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
print(child.pid, flush=True)
sys.exit(child.wait())
`;

async function works(it: ControlledAgent): Promise<void> {
  const status = () => it.curl('/v1/status').then(({ json }) => json, String);
  await expect.poll(status, { timeout: 20_000 }).toMatchObject({ state: 'online' });
  // Some lines of frames each at -vv: far more than a terminal or a pipe holds.
  const lines = '{"bodyText":"x"}\n'.repeat(2_000);
  const ndjson = ['-H', 'content-type: application/x-ndjson', '--data-binary', lines];
  const { body } = await it.curl('/v1/telemetry?wait=hub', ...ndjson);
  expect(jsonLines(body).filter(({ outcome }) => outcome === 'accepted')).toHaveLength(2_000);
  for (let n = 0; n < 20; n++) expect((await it.curl('/v1/telemetry?wait=hub', '-d', 'x')).status).toBe(200);
}

test.each([
  ['a terminal that is stopped with ^S', stoppedTerminal],
  ['a pipe that nobody reads', unreadPipe],
])(
  '%s stops neither the agent nor its end',
  async (_title, script) => {
    await using it = await startAgent();
    it.agent.kill('SIGTERM');
    await it.agent.ended();
    const { PATH = '' } = process.env;
    const python = spawn('python3', ['-c', script, ...command], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { PATH, ...it.env },
      cwd: it.folder.path,
    });
    const ended = once(python, 'close');
    let pid = 0;
    try {
      pid = Number(String(((await once(python.stdout, 'data')) as [Buffer])[0]));
      await works(it);
      const startedAt = performance.now();
      python.kill('SIGTERM');
      expect(await ended).toEqual([0, null]);
      expect(performance.now() - startedAt).toBeLessThan(7_000);
    } finally {
      if (python.exitCode === null && pid > 0) process.kill(pid, 'SIGKILL');
      await ended;
    }
  },
  60_000,
);
