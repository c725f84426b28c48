import { spawnSync } from 'node:child_process';

export const hasOpenssl = spawnSync('openssl', ['version']).status === 0;

/** Runs openssl: what it printed on both streams, and whether it was content. */
export function openssl(
  args: readonly string[],
  input?: string | Buffer,
): { ok: boolean; text: string; out: Buffer } {
  const { status, stdout, stderr } = spawnSync('openssl', args, { input, timeout: 20_000 });
  return { ok: status === 0, text: `${stdout.toString()}${stderr.toString()}`, out: stdout };
}
