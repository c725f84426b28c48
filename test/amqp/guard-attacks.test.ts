import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { text } from 'node:stream/consumers';

import { beforeAll, describe, expect, test } from 'vitest';

import { conversations } from './guard-attacks.js';
import { startHub } from './guard-peer.js';
import type { Outcome } from './guard-victim.js';

/** Lets each of the peer's lines loose on a connection of its own of one other process. */
async function attack(
  lines: Buffer[],
  ...more: string[]
): Promise<{ exit: unknown; outcomes: Outcome[]; printed: string }> {
  await using hub = await startHub(({ socket }, index) => socket.write(lines[index] ?? ''));
  const script = fileURLToPath(new URL('guard-victim.ts', import.meta.url));
  const loader = new URL('../typescript.js', import.meta.url).href;
  const args = [
    '--max-old-space-size=64',
    '--import',
    loader,
    script,
    String(hub.port),
    String(lines.length),
    ...more,
  ];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const [out, printed, [code, signal]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'exit'),
  ]);
  return {
    exit: (code as number | null) ?? (signal as string),
    printed,
    outcomes: out
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Outcome),
  };
}

describe('N15 to N18: a hostile peer', () => {
  let result: Awaited<ReturnType<typeof attack>>;
  beforeAll(async () => {
    result = await attack(conversations.map(({ bytes }) => bytes));
  });

  test('does not end the process, and gets nothing printed', () => {
    expect(result.printed).toBe('');
    expect(result.exit).toBe(0);
    expect(result.outcomes).toHaveLength(conversations.length);
  });

  test('takes no memory', () => {
    expect(Math.max(...result.outcomes.map(({ grownMiB }) => grownMiB))).toBeLessThan(32);
  });

  test.each(conversations.map((attack, index) => ({ ...attack, index })))(
    'is found out: $name',
    ({ index, says }) => {
      expect(result.outcomes[index]?.error).toMatch(says);
      expect(result.outcomes[index]?.code).toBe('protocol');
      // Without the guard the worst take seconds.
      expect(result.outcomes[index]?.cpuMs).toBeLessThan(200);
    },
  );
});

test('without a guard, an array of nulls in open ends the process', async () => {
  const bomb = conversations.find(({ name }) => name === 'properties with an array of 2^32-1 nulls');
  const { exit } = await attack([bomb!.bytes], 'bare');
  expect(exit).not.toBe(0);
});
