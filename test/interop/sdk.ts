import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { startEmulator } from '../../src/emulator/emulator.js';
import type { Emulator, EmulatorOptions } from '../../src/emulator/emulator.js';

/**
 * The SDKs as Microsoft publishes them, each in a process of its own that trusts the emulator's authority. They know
 * no ports but 443 and 5671, so each test file has a loopback address of its own for its hub.
 */
const address = `127.${random()}.${random()}.${random()}`;

function random(): number {
  return 1 + Math.floor(Math.random() * 250);
}

/** Ports below 1024 need a privilege that not everyone has; the tests then skip by name. */
export const mayUse443 = await canListen(443);

async function canListen(port: number): Promise<boolean> {
  const server = createServer().listen(port, address);
  try {
    await once(server, 'listening');
    server.close();
    return true;
  } catch {
    return false;
  }
}

export async function startHub(options: EmulatorOptions = {}): Promise<Emulator> {
  return await startEmulator({
    host: address,
    hubName: address,
    hostNames: [address],
    port: 5671,
    httpsPort: 443,
    ...options,
  });
}

export type SdkName = 'device' | 'service' | 'events';

export class Sdk implements AsyncDisposable {
  readonly #child: ReturnType<typeof fork>;
  readonly #heard: { event: string; data: unknown }[] = [];
  readonly #listeners = new Set<() => void>();
  readonly #pending = new Map<number, (reply: Reply) => void>();
  readonly #cleanUp: () => Promise<void>;
  #calls = 0;

  private constructor(child: ReturnType<typeof fork>, cleanUp: () => Promise<void>) {
    this.#child = child;
    this.#cleanUp = cleanUp;
    child.once('exit', (code) => {
      this.#heard.push({ event: 'exit', data: { code } });
      for (const answer of this.#pending.values())
        answer({ id: 0, error: { name: 'Exit', message: 'the process ended' } });
      for (const wake of this.#listeners) wake();
    });
    child.on('message', (message: Reply | { event: string; data: unknown }) => {
      if ('event' in message) this.#heard.push(message);
      else this.#pending.get(message.id)?.(message);
      for (const wake of this.#listeners) wake();
    });
  }

  static async start(name: SdkName, hub: Emulator): Promise<Sdk> {
    const directory = await mkdtemp(join(tmpdir(), 'interop-'));
    const ca = join(directory, 'ca.pem');
    await writeFile(ca, hub.ca);
    const child = fork(join(import.meta.dirname, `clients/${name}.js`), {
      env: { ...process.env, NODE_EXTRA_CA_CERTS: ca, NODE_NO_WARNINGS: '1' },
      execArgv: [],
    });
    const sdk = new Sdk(child, () => rm(directory, { recursive: true }));
    await sdk.next('ready');
    return sdk;
  }

  /** Calls a method of the client process; an error of the SDK has its name. */
  async call(method: string, ...args: unknown[]): Promise<unknown> {
    const id = ++this.#calls;
    this.#child.send({ id, method, args });
    const { result, error } = await new Promise<Reply>((resolve) => this.#pending.set(id, resolve));
    this.#pending.delete(id);
    if (error) throw Object.assign(new Error(error.message), { name: error.name });
    return result;
  }

  /** The next event of this name that was not taken yet. */
  async next(event: string, timeoutMs = 15_000): Promise<Record<string, unknown>> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const index = this.#heard.findIndex((each) => each.event === event);
      const [found] = index >= 0 ? this.#heard.splice(index, 1) : [];
      if (found) return found.data as Record<string, unknown>;
      if (Date.now() > deadline || this.#child.exitCode !== null)
        throw new Error(`no "${event}"; heard ${JSON.stringify(this.#heard)}`);
      await this.#something(deadline - Date.now());
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null) {
      const gone = once(this.#child, 'exit');
      this.#child.kill('SIGKILL');
      await gone;
    }
    await this.#cleanUp();
  }

  async #something(timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#listeners.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, Math.max(1, timeoutMs));
      this.#listeners.add(wake);
    });
  }
}

interface Reply {
  id: number;
  result?: unknown;
  error?: { name: string; message: string };
}
