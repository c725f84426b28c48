import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { encodeFor } from '../../src/amqp/session.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { openStore } from '../../src/store/store.js';
import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, ToolProcess } from '../cli/tool.js';
import { seeded } from '../store/fake-disk.js';
import { missing } from './kit.js';
import {
  judgeCommands,
  judgeTelemetry,
  type CommandVerdict,
  type Run,
  type TelemetryVerdict,
} from './oracle.js';

export interface KillOptions {
  seed: number;
  kills: number;
  onKill?: (kills: number) => void;
}

export interface Killed {
  telemetry: TelemetryVerdict;
  commands: CommandVerdict;
  acknowledged: number;
  commandsSent: number;
  /**
   * Commands without exactly one reply, repeats of it apart. Outcome and reply are recorded together, so a command
   * that ran again although its outcome was recorded has two.
   */
  wrongReplies: string[];
  /** Exit code of the last life, which was ended with SIGTERM. */
  exitCode: number | null;
}

/**
 * Messages that one death may repeat: a thousand that are unanswered, and as many that the hub had just accepted, with
 * the word of it on its way to the disk.
 */
const window = 2_000;

/** `iothub-device run` as it is installed, with telemetry to send and commands to handle, killed again and again. */
export async function killAgain({ seed, kills, onKill }: KillOptions): Promise<Killed> {
  const random = seeded(seed);
  await using hub = await startHub();
  await using home = await makeHome(hub);
  const acknowledged: string[] = [];
  const sent: string[] = [];
  const crashes: number[] = [];
  for (let n = 0; n < kills; n++) {
    await queue(home.spool, acknowledged, 50 + Math.floor(random() * 300));
    await using agent = home.start();
    const feeding = new AbortController();
    const fed = feed(hub, sent, feeding.signal);
    // Half of the kills while it starts, the others while it works.
    if (random() < 0.5) await agent.says(/online/);
    await delay(random() * 700);
    agent.kill('SIGKILL');
    crashes.push(Date.now());
    feeding.abort();
    await fed;
    await agent.ended();
    onKill?.(n + 1);
  }
  await using last = home.start();
  const timeoutMs = 60_000;
  await hub.waitFor((record) => missing(record, acknowledged) === 0, { timeoutMs });
  await hub.waitFor(() => hub.queueDepth(device) === 0, { timeoutMs });
  // Replies are telemetry of their own, behind the rest; if one never comes, the figures say which.
  await hub.waitFor(() => wrongReplies(hub, sent).length === 0, { timeoutMs: 5_000 }).catch(() => undefined);
  last.kill('SIGTERM');
  const { code } = await last.ended();
  const facts = { deviceId: device, acknowledged, window };
  return {
    telemetry: judgeTelemetry(hub.record, facts),
    commands: judgeCommands(hub.record, { sent, runs: await home.runs(), crashes, slackMs: 500 }),
    acknowledged: acknowledged.length,
    commandsSent: sent.length,
    wrongReplies: wrongReplies(hub, sent),
    exitCode: code,
  };
}

/** A place with a configuration, a handler and a spool of its own. */
async function makeHome(hub: Emulator) {
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const spool = join(folder.path, 'spool');
  const runs = await folder.write('runs', '');
  // One in ten says no.
  const handler = await folder.script(
    'handler',
    `echo "start $$ $IOTHUB_MESSAGE_ID $(date +%s%3N)" >> ${runs}
     case $IOTHUB_MESSAGE_ID in *9) decided=reject code=1 ;; *) decided=accept code=0 ;; esac
     sleep 0.0$(($$ % 10))
     echo "end $$ $IOTHUB_MESSAGE_ID $(date +%s%3N) $decided" >> ${runs}
     echo "$decided"; exit $code`,
  );
  const config = await folder.write(
    'agent.toml',
    `[spool]\ndirectory = "${spool}"\n[commands]\norder = "none"\n[[handlers]]\nname = "all"\non = "command"\nexec = ["${handler}"]\nreply = true\nafter_crash = "run"\n`,
  );
  return {
    spool,
    start: () => new ToolProcess('iothub-device', ['run', '--config', config], { env, cwd: folder.path }),
    runs: async () => parseRuns(await readFile(runs, 'utf8')),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

/** As `send --queue` does, while no agent runs. */
async function queue(directory: string, acknowledged: string[], count: number): Promise<void> {
  const noReplies = (): never => {
    throw new Error('no commands here');
  };
  await using store = await openStore({ directory, ledger: { replyMessage: noReplies } });
  const encode = encodeFor({ deviceId: device });
  const ids = Array.from({ length: count }, (_, n) => `m${acknowledged.length + n + 1}`);
  const messages = ids.map((messageId) => {
    const encoded = encode({ messageId, properties: {}, body: Buffer.from(messageId) });
    return { deviceId: device, messageId, encoded };
  });
  await store.spool.append(messages);
  acknowledged.push(...ids);
}

/** Sends commands so that there is always one to handle. */
async function feed(hub: Emulator, sent: string[], signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    if (hub.queueDepth(device) < 20) {
      const messageId = `c${sent.length + 1}`;
      if (hub.sendCommand({ deviceId: device, messageId, body: 'go' }).outcome === 'accepted') {
        sent.push(messageId);
      }
    }
    await delay(5);
  }
}

function parseRuns(text: string): Run[] {
  const runs: Run[] = [];
  /** By process id: an orphan of a killed agent may end after the next run of its command has begun. */
  const open = new Map<string, Run>();
  for (const line of text.split('\n')) {
    const [what, pid = '', messageId = '', at, decided] = line.split(' ');
    if (what === 'start') {
      const run = { messageId, startedAt: Number(at) };
      runs.push(run);
      open.set(pid, run);
    } else if (what === 'end') Object.assign(open.get(pid) ?? {}, { endedAt: Number(at), decided });
  }
  return runs;
}

function wrongReplies(hub: Emulator, sent: readonly string[]): string[] {
  const replies = new Map<string | undefined, Set<string | undefined>>();
  for (const { correlationId, messageId } of hub.record.of('telemetry')) {
    if (correlationId === undefined) continue;
    const its = replies.get(correlationId) ?? new Set();
    replies.set(correlationId, its.add(messageId));
  }
  return sent.filter((id) => replies.get(id)?.size !== 1);
}
