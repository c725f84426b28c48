import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';

import type { Emulator } from '../../src/emulator/emulator.js';

export type ToolName = 'iothub-device' | 'iothub-service' | 'iothub-emulator';

export interface ToolOptions {
  env?: Record<string, string>;
  cwd?: string;
}

export interface Finished {
  code: number | null;
  out: string;
  err: string;
}

/** One of the three commands as a process, started as its installed file starts it. */
export class ToolProcess implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #closed: Promise<unknown>;
  readonly #watchers = new Set<() => void>();
  out = '';
  err = '';

  readonly #tool: ToolName;
  readonly #args: readonly string[];
  readonly #env: Record<string, string>;

  constructor(tool: ToolName, args: readonly string[], { env = {}, cwd }: ToolOptions = {}) {
    this.#tool = tool;
    this.#args = args;
    this.#env = env;
    const file = join(import.meta.dirname, `../../bin/${tool}.js`);
    const { PATH = '', HOME = '' } = process.env;
    this.#child = spawn(process.execPath, ['--use-openssl-ca', file, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      // Whoever runs the tests may have a configuration.
      env: { PATH, HOME, XDG_CONFIG_HOME: '/nonexistent', ...env },
      ...(cwd === undefined ? {} : { cwd }),
    });
    // A command that ends without reading its input is none of the test's business.
    this.#child.stdin.on('error', () => undefined);
    this.#child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.out += text;
      this.#look();
    });
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.err += text;
      this.#look();
    });
    this.#closed = once(this.#child, 'close').then(() => {
      this.#look();
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get exited(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  get stdin(): Writable {
    return this.#child.stdin;
  }

  get stdout(): Readable {
    return this.#child.stdout;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Resolves when it has ended; `input` is all of its standard input. */
  async finish(input?: string | Buffer): Promise<Finished> {
    if (input === undefined) this.#child.stdin.end();
    else this.#child.stdin.end(input);
    return this.ended();
  }

  /** Resolves when it has ended, with its standard input left open. */
  async ended(): Promise<Finished> {
    await this.#closed;
    this.#expectNoSecrets();
    return { code: this.#child.exitCode, out: this.out, err: this.err };
  }

  /** Resolves when what it printed on either stream matches. */
  async says(pattern: RegExp, timeoutMs = 20_000): Promise<void> {
    const deadline = AbortSignal.timeout(timeoutMs);
    while (!pattern.test(this.out) && !pattern.test(this.err)) {
      if (deadline.aborted || this.exited) {
        throw new Error(`it did not say ${String(pattern)} but\n${this.out}\n${this.err}`);
      }
      await new Promise<void>((resolve) => {
        const look = () => {
          this.#watchers.delete(look);
          deadline.removeEventListener('abort', look);
          resolve();
        };
        this.#watchers.add(look);
        deadline.addEventListener('abort', look);
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.exited) this.#child.kill('SIGKILL');
    await this.#closed;
  }

  /** Whatever a test is about: what people read holds no key and no signature, and neither does what a device prints. */
  #expectNoSecrets(): void {
    const mayPrint = this.#tool !== 'iothub-device' || this.#args[0] === 'sas';
    const found = secretsIn(mayPrint ? this.err : this.err + this.out, Object.values(this.#env));
    if (found.length > 0)
      throw new Error(`${this.#tool} ${this.#args.join(' ')} printed ${found.join(' and ')}`);
  }

  #look(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }
}

/** What secrets a text holds: keys of connection strings in any form, and signatures of tokens. */
export function secretsIn(text: string, given: readonly string[]): string[] {
  const keys = given.flatMap((value) => /SharedAccessKey=([^;]{16,})/.exec(value)?.[1] ?? []);
  const found = keys.flatMap((key) => {
    const bytes = Buffer.from(key);
    const forms = {
      'the key': key,
      'the key, for a URL': encodeURIComponent(key),
      'the key in hex': bytes.toString('hex'),
      'the key in base64': bytes.toString('base64'),
      'the bytes of the key in hex': Buffer.from(key, 'base64').toString('hex'),
    };
    return Object.entries(forms).flatMap(([name, form]) => (text.includes(form) ? [name] : []));
  });
  return /\bsig=(?!\[secret\]|…)[\w%+/=]{20,}/.test(text) ? [...found, 'a signature'] : found;
}

/** Runs a command to its end. */
export async function runTool(
  tool: ToolName,
  args: readonly string[],
  options: ToolOptions & { input?: string | Buffer } = {},
): Promise<Finished> {
  await using process = new ToolProcess(tool, args, options);
  return await process.finish(options.input);
}

/** What `. ./hub.env` would put into the environment. */
export async function environmentOf(
  hub: Emulator,
  deviceId: string,
  folder: Folder,
): Promise<Record<string, string>> {
  const ca = await folder.write('ca.pem', hub.ca);
  return {
    IOTHUB_DEVICE_CONNECTION_STRING: hub.deviceConnectionString(deviceId),
    IOTHUB_DEVICE_CA: ca,
    IOTHUB_SERVICE_CONNECTION_STRING: hub.serviceConnectionString(),
    IOTHUB_SERVICE_CA: ca,
    XDG_STATE_HOME: join(folder.path, 'state'),
  };
}

/** A folder of the test's own. */
export class Folder implements AsyncDisposable {
  private constructor(readonly path: string) {}

  static async make(): Promise<Folder> {
    return new Folder(await mkdtemp(join(tmpdir(), 'iothub-test-')));
  }

  async write(name: string, content: string | Buffer, mode = 0o600): Promise<string> {
    const file = join(this.path, name);
    await writeFile(file, content, { mode });
    return file;
  }

  /** A shell script that can be executed. */
  script(name: string, body: string): Promise<string> {
    return this.write(name, `#!/bin/sh\n${body}\n`, 0o700);
  }

  /** Resolves when there is a file of this name. */
  async has(name: string, timeoutMs = 20_000): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (!existsSync(join(this.path, name))) {
      if (Date.now() > deadline) throw new Error(`no file ${name} came to be in ${this.path}`);
      await delay(20);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}
