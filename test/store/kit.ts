import type { Clock } from '../../src/clock.js';
import type { Log, LogFields, LogLevel } from '../../src/log.js';
import type { Machine } from '../../src/store/age.js';
import { DurableLog, type LogOptions } from '../../src/store/log/durable-log.js';
import type { NewMessage } from '../../src/store/spooled-message.js';
import type { FakeDisk } from './fake-disk.js';

const directory = '/store';

/** A log on a disk in memory, which has no sockets to own it by. */
export function openLog(disk: FakeDisk, options: Partial<LogOptions> = {}): Promise<DurableLog> {
  const ownership = (): Promise<{ release(): Promise<void> }> =>
    Promise.resolve({ release: () => Promise.resolve() });
  return DurableLog.open({ directory, files: disk, segmentBytes: 16 * 1024, ownership, ...options });
}

export function message(messageId: string, more: Partial<NewMessage> = {}): NewMessage {
  return { messageId, deviceId: 'dev1', encoded: Buffer.from(`body of ${messageId}`), ...more };
}

/** A clock and a machine whose times are set by hand. */
export class HandClock implements Clock, Machine {
  boot = 1;
  nowMs = Date.UTC(2026, 5, 1);
  elapsedMs = 1000;
  now = (): number => this.nowMs;
  monotonic = (): number => this.elapsedMs;
  uptimeMs = (): number => this.elapsedMs;
  sleep = (): Promise<void> => Promise.reject(new Error('nobody sleeps here'));

  /** Time goes by. */
  pass(ms: number): void {
    this.nowMs += ms;
    this.elapsedMs += ms;
  }
}

/** Keeps what is said. */
export class MemoryLog implements Log {
  readonly lines: { level: LogLevel; message: string; fields: LogFields }[] = [];
  readonly error = this.#at('error');
  readonly warn = this.#at('warn');
  readonly info = this.#at('info');
  readonly debug = this.#at('debug');
  readonly trace = this.#at('trace');
  child = (): Log => this;

  errors(): string[] {
    return this.lines.filter(({ level }) => level === 'error').map(({ message }) => message);
  }

  #at(level: LogLevel): (message: string, fields?: LogFields) => void {
    return (message, fields = {}) => {
      this.lines.push({ level, message, fields });
    };
  }
}
