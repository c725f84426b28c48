import fc from 'fast-check';
import { expect, test, vi } from 'vitest';

import type { CommandLedger } from '../../src/handlers/ledger.js';
import type { Command } from '../../src/model.js';
import { kinds } from '../../src/store/kinds.js';
import { Ledger, type LedgerOptions } from '../../src/store/ledger.js';
import { Spool } from '../../src/store/spool.js';
import { FakeDisk, seeded, systemError } from './fake-disk.js';
import { HandClock, message, openLog } from './kit.js';

interface Opened extends AsyncDisposable {
  readonly spool: Spool;
  /** As the dispatcher sees it. */
  readonly ledger: CommandLedger & Pick<Ledger, 'size' | 'entries' | 'close'>;
}

async function openLedger(disk = new FakeDisk(), options: Partial<LedgerOptions> = {}): Promise<Opened> {
  const clock = options.clock as HandClock | undefined;
  const log = await openLog(disk, clock ? { clock } : {});
  const spool = await Spool.open(log);
  const ledger = await Ledger.open(log, spool, {
    replyMessage: ({ deviceId, messageId }, { outcome }, { body }) =>
      message(`${outcome} ${messageId ?? '?'}`, { deviceId, encoded: body }),
    ...(clock && { machine: clock }),
    ...options,
  });
  return { spool, ledger, [Symbol.asyncDispose]: () => log.close() };
}

const command: Command = {
  deviceId: 'dev1',
  messageId: 'm1',
  deliveryCount: 0,
  lockToken: 'token',
  properties: {},
  body: Buffer.from('restart'),
};
const run = { handler: 'restart', attempt: 1 };
const accept = { outcome: { outcome: 'accept' }, fault: false, command } as const;
const release = { outcome: { outcome: 'release' }, fault: true, command } as const;

async function replies(spool: Spool): Promise<string[]> {
  const { messages } = await spool.read(Spool.start, { count: 1000 });
  return messages.map(({ messageId, encoded }) => `${messageId}: ${encoded.toString()}`);
}

/** What the log says last of each command. */
async function progressOnDisk(disk: FakeDisk): Promise<Record<string, string>> {
  await using log = await openLog(disk.afterPowerCut());
  const last: Record<string, string> = {};
  for await (const { value } of log.items(kinds.command)) {
    const page = JSON.parse(value.toString()) as { keys: string[]; progress: { is: string } };
    for (const key of page.keys) last[key] = page.progress.is;
  }
  return last;
}

test('a new command is open, and one with an outcome is decided, also after a power cut', async () => {
  const disk = new FakeDisk();
  {
    await using opened = await openLedger(disk);
    expect(await opened.ledger.received('k')).toEqual({ state: 'open', attempts: 0, faults: 0 });
    await opened.ledger.started('k', run);
    await opened.ledger.finished('k', {
      outcome: { outcome: 'reject', reason: 'no' },
      fault: false,
      command,
    });
  }
  await using opened = await openLedger(disk.afterPowerCut());
  const decided = { state: 'decided', outcome: { outcome: 'reject', reason: 'no' } };
  expect(await opened.ledger.received('k')).toEqual(decided);
  opened.ledger.settled('k');
  expect(await opened.ledger.received('k')).toEqual(decided);
});

test('a command whose handler had begun when the process ended is unknown', async () => {
  const disk = new FakeDisk();
  const { ledger } = await openLedger(disk);
  await ledger.received('k');
  await ledger.started('k', run);
  await using opened = await openLedger(disk.afterPowerCut());
  expect(await opened.ledger.received('k')).toEqual({ state: 'unknown', attempts: 1, faults: 1 });
  await opened.ledger.started('k', { handler: 'restart', attempt: 2 });
  await opened.ledger.finished('k', accept);
  expect(await opened.ledger.received('k')).toMatchObject({ state: 'decided' });
});

test('a released command is open again and remembers its attempts and faults', async () => {
  const disk = new FakeDisk();
  const { ledger } = await openLedger(disk);
  await ledger.received('k');
  await ledger.started('k', run);
  await ledger.finished('k', release);
  await using opened = await openLedger(disk.afterPowerCut());
  expect(await opened.ledger.received('k')).toEqual({ state: 'open', attempts: 1, faults: 1 });
});

test('a command that nothing ran for leaves nothing behind', async () => {
  await using opened = await openLedger();
  await opened.ledger.received('k');
  opened.ledger.settled('k');
  expect(opened.ledger.size).toBe(0);
});

test('what cannot be recorded is refused, and nothing changes', async () => {
  const disk = new FakeDisk();
  await using opened = await openLedger(disk);
  await opened.ledger.received('k');
  disk.fault = () => systemError('EIO');
  await expect(opened.ledger.started('k', run)).rejects.toMatchObject({ code: 'io' });
  expect(await opened.ledger.received('k')).toMatchObject({ state: 'open' });
});

test('outcome and reply are stored together or not at all, wherever the power is cut', async () => {
  for (let call = 0; ; call++) {
    const disk = new FakeDisk(seeded(call));
    const { ledger } = await openLedger(disk);
    await ledger.received('k');
    await ledger.started('k', run);
    const before = disk.trace.length;
    disk.fault = () => (disk.trace.length - before >= call ? 'power cut' : undefined);
    const finished = await ledger.finished('k', { ...accept, reply: { body: Buffer.from('done') } }).then(
      () => true,
      () => false,
    );
    await using opened = await openLedger(disk.afterPowerCut());
    const { state } = await opened.ledger.received('k');
    const waiting = await replies(opened.spool);
    expect(waiting).toEqual(state === 'decided' ? ['accept m1: done'] : []);
    if (finished) {
      expect(state).toBe('decided');
      break;
    }
    expect(['decided', 'unknown']).toContain(state);
  }
});

test('what several commands ask for at once shares a sync', async () => {
  const disk = new FakeDisk();
  await using opened = await openLedger(disk);
  const keys = Array.from({ length: 20 }, (_, n) => `k${n}`);
  for (const key of keys) await opened.ledger.received(key);
  await opened.ledger.started('k0', run);
  const before = disk.trace.length;
  await Promise.all(keys.slice(1).map((key) => opened.ledger.started(key, run)));
  // One for them, the rest for a spare that is made beside it.
  expect(disk.trace.slice(before).filter(({ call }) => call === 'sync').length).toBeLessThan(4);
});

test('that a command is settled is written with the next one, or when the ledger is closed', async () => {
  const disk = new FakeDisk();
  const settle = async (ledger: CommandLedger, key: string): Promise<void> => {
    await ledger.received(key);
    await ledger.started(key, run);
    await ledger.finished(key, accept);
    ledger.settled(key);
  };
  await using opened = await openLedger(disk);
  await settle(opened.ledger, 'first');
  expect(await progressOnDisk(disk)).toEqual({ first: 'decided' });
  await settle(opened.ledger, 'second');
  expect(await progressOnDisk(disk)).toEqual({ first: 'settled', second: 'decided' });
  await opened.ledger.close();
  expect(await progressOnDisk(disk)).toEqual({ first: 'settled', second: 'settled' });
});

test('that a thousand commands are settled does not wait for another', async () => {
  const disk = new FakeDisk();
  await using opened = await openLedger(disk);
  const keys = Array.from({ length: 1000 }, (_, n) => `k${n}`);
  await Promise.all(keys.map((key) => opened.ledger.finished(key, accept)));
  for (const key of keys) opened.ledger.settled(key);
  await vi.waitUntil(async () => {
    const { k0, k999 } = await progressOnDisk(disk);
    return k0 === 'settled' && k999 === 'settled';
  });
});

test('what the log has newer of all commands on a page takes it off the disk', async () => {
  await using log = await openLog(new FakeDisk());
  const ledger = await Ledger.open(log, await Spool.open(log), { replyMessage: () => undefined });
  const keys = Array.from({ length: 30 }, (_, n) => `k${n}`);
  const all = (step: (key: string) => unknown): Promise<unknown> => Promise.all(keys.map(step));
  await all((key) => ledger.received(key));
  await all((key) => ledger.started(key, run));
  await ledger.finished('k0', accept);
  await ledger.close();
  expect(log.count(kinds.command)).toBe(2);
  await Promise.all(keys.slice(1).map((key) => ledger.finished(key, accept)));
  for (const key of keys) ledger.settled(key);
  await ledger.close(); // writes one page, and finds two outdated
  await ledger.close();
  expect(log.count(kinds.command)).toBe(1);
});

test('a ledger from before there were pages is read', async () => {
  await using log = await openLog(new FakeDisk());
  const at = { wallMs: Date.now(), boot: 1, uptimeMs: 1 };
  const progress = { is: 'decided', outcome: { outcome: 'reject', reason: 'no' } };
  const entry = {
    key: 'k',
    command: { deviceId: 'dev1', messageId: 'm1' },
    at,
    handler: 'restart',
    progress,
  };
  await log.commit([{ put: { kind: kinds.command, value: [Buffer.from(JSON.stringify(entry))] } }]);
  const ledger = await Ledger.open(log, await Spool.open(log), { replyMessage: () => undefined });
  const outcome = { outcome: 'reject', reason: 'no' };
  expect(await ledger.received('k')).toEqual({ state: 'decided', outcome });
});

test('what fails together is refused together, and what is asked for again is written', async () => {
  const disk = new FakeDisk();
  await using opened = await openLedger(disk);
  for (const key of ['a', 'b']) await opened.ledger.received(key);
  disk.fault = () => systemError('EIO');
  const both = ['a', 'b'].map((key) => opened.ledger.started(key, run));
  for (const one of await Promise.allSettled(both)) expect(one.status).toBe('rejected');
  disk.fault = () => undefined;
  await vi.waitFor(() => Promise.all(['a', 'b'].map((key) => opened.ledger.started(key, run))), 5_000);
  expect(await opened.ledger.received('a')).toMatchObject({ state: 'unknown' });
});

test('settled commands are forgotten after a day, decided ones only when the hub has given them up', async () => {
  const clock = new HandClock();
  const disk = new FakeDisk();
  await using opened = await openLedger(disk, { clock });
  const { ledger } = opened;
  for (const key of ['settled', 'decided']) {
    await ledger.started(key, run);
    await ledger.finished(key, accept);
  }
  ledger.settled('settled');
  await ledger.close(); // writes that it is
  const hour = 3600 * 1000;
  clock.pass(25 * hour);
  await ledger.started('another', run);
  expect([...ledger.entries()].map(({ key }) => key)).toEqual(['decided', 'another']);
  clock.pass(25 * hour);
  await ledger.started('one more', run);
  expect([...ledger.entries()].map(({ key }) => key)).toEqual(['another', 'one more']);
});

test('a jump of the clock makes it forget nothing', async () => {
  const clock = new HandClock();
  await using opened = await openLedger(new FakeDisk(), { clock });
  const { ledger } = opened;
  await ledger.received('k');
  await ledger.started('k', run);
  await ledger.finished('k', accept);
  ledger.settled('k');
  clock.nowMs += 10 * 365 * 24 * 3600 * 1000;
  clock.elapsedMs += 70_000;
  await ledger.started('another', run);
  expect(await ledger.received('k')).toMatchObject({ state: 'decided' });
});

test('of too many commands, settled ones go first, and their place on disk with them', async () => {
  const disk = new FakeDisk();
  {
    await using opened = await openLedger(disk, { maximumCount: 3 });
    for (const key of ['1', '2', '3', '4', '5']) {
      await opened.ledger.received(key);
      await opened.ledger.started(key, run);
      if (key === '2') continue;
      await opened.ledger.finished(key, accept);
      opened.ledger.settled(key);
    }
    expect([...opened.ledger.entries()].map(({ key }) => key)).toEqual(['2', '4', '5']);
  }
  await using opened = await openLedger(disk.afterPowerCut());
  expect([...opened.ledger.entries()].map(({ key }) => key)).toEqual(['2', '4', '5']);
});

test('a command with a recorded outcome runs once, whatever crashes and redeliveries come between', async () => {
  const steps = fc.array(fc.record({ cut: fc.nat(12), settles: fc.boolean() }), {
    minLength: 1,
    maxLength: 8,
  });
  await fc.assert(
    fc.asyncProperty(fc.nat(), steps, async (seed, deliveries) => {
      let disk = new FakeDisk(seeded(seed));
      let runs = 0;
      let runsUnrecorded = 0;
      for (const { cut, settles } of deliveries) {
        const { ledger } = await openLedger(disk);
        const before = disk.trace.length;
        disk.fault = () => (disk.trace.length - before >= cut ? 'power cut' : undefined);
        let ranNow = false;
        try {
          const known = await ledger.received('k');
          if (known.state !== 'decided') {
            await ledger.started('k', { handler: 'h', attempt: known.attempts + 1 });
            runs++;
            ranNow = true;
            await ledger.finished('k', accept);
            ranNow = false;
          }
          if (settles) ledger.settled('k');
        } catch {
          // The power is gone; the hub delivers again.
        }
        if (ranNow) runsUnrecorded++;
        disk = disk.afterPowerCut();
      }
      expect(runs - runsUnrecorded).toBeLessThanOrEqual(1);
      await using last = await openLedger(disk);
      const { state } = await last.ledger.received('k');
      if (runs > runsUnrecorded) expect(state).toBe('decided');
      if (runs > 0) expect(state).not.toBe('open');
    }),
    { numRuns: 1000 },
  );
});
