import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import type { Emulator } from '../../src/emulator/emulator.js';
import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, ToolProcess } from './tool.js';

const isLong = process.env['IOTHUB_FAULTS'] === 'long';
const isRoot = process.getuid?.() === 0;
const flood = isLong ? { stdout: '8G', stderr: '2G' } : { stdout: '300M', stderr: '50M' };

/**
 * Forks as fast as it can, and so does each child, and none gives up. As a user of nobody's who may have 64 processes,
 * so that it meets a wall of its own and not that of the machine.
 */
function bomb(inChild: string, user: number): string {
  const forks = `for (;;) { my $p = fork; if (!defined $p) { select undef, undef, undef, 0.01 } elsif (!$p) { ${inChild} } }`;
  return `exec prlimit --nproc=64 setpriv --reuid=${user} --regid=65534 --clear-groups perl -MPOSIX -e '${forks}'`;
}
const firstUser = 61_000 + 2 * (process.pid % 1_000);

interface Misbehaviour {
  /** Shell text. */
  text: string;
  /** What the hub hears of it, one after the other. */
  outcomes: string[];
  /** Takes its time: what came of it is told by telemetry. */
  inbox?: boolean;
  /** So many processes it has at least, when it is in full swing. */
  processes?: number;
  skip?: boolean;
}
const timedOut = ['rejected'];
const misbehaviours: Record<string, Misbehaviour> = {
  hangs: { text: 'exec sleep 600', outcomes: timedOut },
  'ignores SIGTERM': { text: `trap '' TERM; while :; do sleep 1; done`, outcomes: timedOut },
  'closes its standard streams': { text: 'exec 0<&- 1>&- 2>&-; sleep 600', outcomes: timedOut },
  crashes: { text: 'sleep 1; kill -SEGV $$', outcomes: ['released', 'released', 'rejected'] },
  'writes without end': { text: 'yes & yes >&2', outcomes: timedOut },
  [`writes ${flood.stdout} and ${flood.stderr}`]: {
    text: `head -c ${flood.stdout} /dev/zero; yes a line | head -c ${flood.stderr} >&2`,
    outcomes: ['accept'],
    inbox: true,
  },
  'leaves grandchildren in sessions of their own': {
    text: `for i in 1 2 3; do setsid sh -c 'trap "" TERM; (setsid sleep 600 &) ; sleep 600' & done; sleep 600`,
    outcomes: timedOut,
  },
  'is a fork bomb': { text: bomb('', firstUser), outcomes: timedOut, processes: 50, skip: !isRoot },
  'is a fork bomb that leaves its group': {
    text: bomb('POSIX::setsid()', firstUser + 1),
    outcomes: timedOut,
    processes: 50,
    skip: !isRoot,
  },
};
const rows = Object.entries(misbehaviours);

// One after the other where the figures are to be read.
const all = isLong ? describe : describe.concurrent;

all('a handler that', () => {
  let hub: Emulator;
  let folder: Folder;
  let agent: ToolProcess;

  beforeAll(async () => {
    hub = await startHub();
    folder = await Folder.make();
    const handlers = await Promise.all(
      rows.map(async ([name, { text, inbox = false }], n) => {
        await mkdir(join(folder.path, `dir${n}`), { mode: 0o711 });
        await folder.script(`bad${n}`, `: > ../begun${n}\n${text}`);
        const rules = inbox ? 'timeout = "10m"\nsettle = "inbox"' : 'timeout = "5s"\non_timeout = "reject"';
        return `[[handlers]]\nname = "${name}"\nexec = ["./bad${n}"]\ncwd = "dir${n}"\nmatch = { message_id = "bad${n}" }\n${rules}\n`;
      }),
    );
    const good = await folder.script('good', 'cat >/dev/null');
    const config = await folder.write(
      'agent.toml',
      `[commands]\nconcurrency = 32\nrelease_delay = "100ms..100ms"\n${handlers.join('')}[[handlers]]\nexec = ["${good}"]\norder = "none"\n`,
    );
    const env = await environmentOf(hub, device, folder);
    agent = new ToolProcess('iothub-device', ['run', '--config', config], { env, cwd: folder.path });
    await agent.says(/online/);
  });
  afterAll(async () => {
    await agent[Symbol.asyncDispose]();
    await hub[Symbol.asyncDispose]();
    await folder[Symbol.asyncDispose]();
  });

  const outcomesOf = (messageId: string): string[] =>
    hub.record
      .of('outcome')
      .filter((one) => one.messageId === messageId)
      .map(({ outcome }) => outcome.outcome);
  const repliesTo = (messageId: string): string[] =>
    hub.record
      .of('telemetry')
      .filter(({ correlationId }) => correlationId === messageId)
      .map(({ properties }) => String(properties['iothub-command-outcome']));

  rows.forEach(([name, { outcomes, inbox = false, processes = 0, skip = false }], n) => {
    const heard = () => (inbox ? repliesTo : outcomesOf)(`bad${n}`);
    test.skipIf(skip)(
      `${name}: others work meanwhile, nothing stays behind, memory is flat`,
      async () => {
        const directory = join(folder.path, `dir${n}`);
        hub.sendCommand({ deviceId: device, messageId: `bad${n}`, body: Buffer.alloc(60_000) });
        await vi.waitUntil(() => existsSync(join(folder.path, `begun${n}`)), { timeout: 20_000 });
        await vi.waitUntil(async () => (await processesIn(directory)).length >= processes, {
          timeout: 20_000,
        });
        const ids = Array.from({ length: 5 }, (_, index) => `good${n}-${index}`);
        const startedAt = performance.now();
        for (const messageId of ids) hub.sendCommand({ deviceId: device, messageId, body: 'go' });
        await vi.waitUntil(() => ids.every((id) => outcomesOf(id).length > 0), { timeout: 20_000 });
        const ms = performance.now() - startedAt;
        // It still has not ended, so that nobody can have waited for it.
        expect(heard().length).toBeLessThan(outcomes.length);

        await vi.waitUntil(() => heard().length === outcomes.length, { timeout: isLong ? 300_000 : 60_000 });
        expect(heard()).toEqual(outcomes);
        await vi.waitFor(
          async () => {
            expect(await processesIn(directory)).toEqual([]);
          },
          { timeout: 5_000 },
        );
        // The most that it ever had. Without anything to do it is some 80 MB.
        const [, peakKiB] = /VmHWM:\s+(\d+)/.exec(await readFile(`/proc/${agent.pid}/status`, 'utf8')) ?? [];
        expect(Number(peakKiB)).toBeLessThan(250_000);
        if (isLong)
          process.stdout.write(
            `${name}: five others in ${ms.toFixed()} ms, peak ${Number(peakKiB) >> 10} MiB\n`,
          );
      },
      isLong ? 400_000 : 90_000,
    );
  });
});

/** Processes whose working directory is this one. */
async function processesIn(directory: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry))) {
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '');
    if (cwd === directory) found.push(await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''));
  }
  return found;
}
