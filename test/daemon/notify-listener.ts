import { spawn } from 'node:child_process';
import { join } from 'node:path';

import { expect, vi } from 'vitest';

import type { Folder } from '../cli/tool.js';

/** A socket as systemd's: prints every datagram, and closes descriptors that ask for a barrier (sd_notify_barrier(3)). */
const listener = `
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('ready', flush=True)
while True:
    data, fds, flags, address = socket.recv_fds(s, 4096, 4)
    for fd in fds:
        os.close(fd)
    print(int(time.monotonic() * 1000), data.decode().replace('\\n', '|'), flush=True)
`;

/** Listens as systemd does, until it is disposed of. */
export async function listenAsSystemd(folder: Folder) {
  const path = join(folder.path, 'notify');
  const script = await folder.write('listener.py', listener);
  const process_ = spawn('python3', [script, path]);
  const state = { heard: '' };
  process_.stdout.setEncoding('utf8').on('data', (text: string) => (state.heard += text));
  await vi.waitFor(() => {
    expect(state.heard).toContain('ready');
  });
  return {
    path,
    /** What was heard, a datagram each; barriers left out. */
    heard: () => heardIn(state.heard).map(({ text }) => text),
    /** The milliseconds between each sign of life and the next. */
    gapsMs: () => {
      const times = heardIn(state.heard).flatMap(({ text, at }) => (text === 'WATCHDOG=1' ? [at] : []));
      return times.slice(1).map((at, n) => at - times[n]!);
    },
    [Symbol.asyncDispose]: async () => {
      process_.kill();
      await new Promise((resolve) => process_.once('close', resolve));
    },
  };
}

function heardIn(text: string): { at: number; text: string }[] {
  return text
    .split('\n')
    .map((line) => /^(\d+) (.*)$/.exec(line))
    .flatMap((found) => (found === null ? [] : [{ at: Number(found[1]), text: found[2]! }]))
    .filter((heard) => heard.text !== 'BARRIER=1');
}
