import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished, test } from 'vitest';

import { systemClock, type Clock } from '../../src/clock.js';
import type { CommandEvent } from '../../src/handlers/contract.js';
import type { Answer, Handler, Run } from '../../src/handlers/handler.js';
import { silentLog, type Log } from '../../src/log.js';
import type { Command } from '../../src/model.js';

/** A directory that goes when the test is over. */
export function tempDir(): string {
  const dir = mkdtempSync(join(tmpdir(), 'iothub-handlers-'));
  onTestFinished(() => {
    rmSync(dir, { recursive: true, force: true });
  });
  return dir;
}

/** An executable file with this text. */
export function script(text: string, { dir = tempDir(), name = 'handler', mode = 0o755 } = {}): string {
  const file = join(dir, name);
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}

export const sh = (text: string): string => script(`#!/bin/sh\n${text}\n`);

let sequenceNumber = 0;

export function command(fields: Partial<Command> = {}): Command {
  sequenceNumber++;
  return {
    deviceId: 'dev1',
    messageId: `m${sequenceNumber}`,
    sequenceNumber,
    enqueuedAt: Date.UTC(2026, 0, 1),
    deliveryCount: 0,
    lockToken: `lock-${sequenceNumber}`,
    properties: {},
    body: Buffer.from('{}'),
    ...fields,
  };
}

export function commandEvent(fields: Partial<CommandEvent> = {}): CommandEvent {
  return {
    event: 'command',
    deviceId: 'dev1',
    deliveryCount: 0,
    properties: {},
    body: Buffer.from('{}'),
    ...fields,
  };
}

/** Runs a handler once, outside any dispatcher. */
export async function runOnce(
  handler: Handler,
  event: Partial<CommandEvent> = {},
  run: Partial<Run> = {},
): Promise<Answer> {
  return await handler.run(commandEvent(event), {
    attempt: 1,
    timeoutMs: handler.timeoutMs,
    log: silentLog,
    stopping: new AbortController().signal,
    killing: new AbortController().signal,
    ...run,
  });
}

export interface LogEntry {
  level: string;
  message: string;
  fields: Record<string, unknown>;
}

/** A log that can be read. */
export function recordingLog(): Log & { entries: LogEntry[] } {
  const entries: LogEntry[] = [];
  const at = (bound: Record<string, unknown>): Log => {
    const write =
      (level: string) =>
      (message: string, fields: Record<string, unknown> = {}): void => {
        entries.push({ level, message, fields: { ...bound, ...fields } });
      };
    return {
      error: write('error'),
      warn: write('warn'),
      info: write('info'),
      debug: write('debug'),
      trace: write('trace'),
      child: (fields) => at({ ...bound, ...fields }),
    };
  };
  return { ...at({}), entries };
}

const hasPython = spawnSync('python3', ['--version']).status === 0;

/** Skips itself by name where there is no `python3`. */
export const testPython = test.skipIf(!hasPython);

/** Waits a tenth of the time, for what would take its seconds. */
export const hastyClock: Clock = {
  ...systemClock,
  sleep: (ms, signal) => systemClock.sleep(ms / 10, signal),
};
