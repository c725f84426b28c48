/**
 * Durations, sizes and times as people write them, on the command line and in the configuration. What cannot be read
 * is a `SyntaxError` whose text says how to write it.
 */

const unitMs: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `500ms`, `30s`, `1h30m`, `2d`, or ISO 8601 without months (`PT5M`), as milliseconds. */
export function parseDuration(text: string): number {
  const ms = text === '0' ? 0 : (plainDuration(text) ?? isoDuration(text));
  if (ms !== undefined) return safe(ms, 'duration');
  if (/^\d+(\.\d+)?$/.test(text))
    throw new SyntaxError(`a duration needs a unit: write ${text}s or ${text}ms`);
  throw new SyntaxError('write a duration as 500ms, 30s, 5m, 1h30m, 2d or PT5M');
}

/** The shortest way to write a duration that `parseDuration` reads back. */
export function formatDuration(ms: number): string {
  let left = Math.round(ms);
  const parts: string[] = [];
  for (const unit of ['d', 'h', 'm', 's', 'ms']) {
    const length = unitMs[unit] ?? 1;
    if (left >= length) parts.push(`${String(Math.floor(left / length))}${unit}`);
    left %= length;
  }
  return parts.join('') || '0s';
}

/** A measured or remaining time for people: `45 s`, `0.3 s`, `0.05 s`; what a clock is late by does not show. */
export function formatSeconds(ms: number): string {
  return `${ms < 100 ? Math.round(ms) / 1000 : Math.round(ms / 100) / 10} s`;
}

const unitBytes: Record<string, number> = {
  '': 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
};

/** `64KB`, `256KiB`, `1.5MiB`, `512` as bytes. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s?([a-z]*)$/i.exec(text);
  const unit = unitBytes[match?.[2]?.toLowerCase() ?? 'none'];
  if (unit === undefined) throw new SyntaxError('write a size as 512, 64KB, 256KiB or 1MiB');
  return safe(Math.round(Number(match?.[1]) * unit), 'size');
}

/** A size for people: `512 B`, `1.5 KiB`, `256 MiB`. */
export function formatSize(bytes: number): string {
  const power = Math.min(3, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)));
  const amount = bytes / 1024 ** power;
  const digits = power > 0 && amount < 10 && !Number.isInteger(amount) ? 1 : 0;
  return `${amount.toFixed(digits)} ${['B', 'KiB', 'MiB', 'GiB'][power] ?? ''}`;
}

/**
 * RFC 3339 with its zone, seconds or milliseconds since the epoch, or relative to `nowMs` (`-15m`, `+1h`, `now`,
 * `now-1h`), as milliseconds since the epoch.
 */
export function parseTime(text: string, nowMs: number): number {
  if (text === 'now') return nowMs;
  const relative = /^(?:now)?([+-])(.+)$/.exec(text);
  if (relative?.[2] !== undefined) {
    const distance = parseDuration(relative[2]);
    return relative[1] === '-' ? nowMs - distance : nowMs + distance;
  }
  if (/^\d{9,10}$/.test(text)) return Number(text) * 1000;
  if (/^\d{12,13}$/.test(text)) return Number(text);
  return rfc3339(text);
}

const rfc3339Pattern = /^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)?$/i;

function rfc3339(text: string): number {
  const match = rfc3339Pattern.exec(text);
  if (match && match[7] === undefined) {
    throw new SyntaxError(`a time needs its zone: write ${text}Z, or +01:00 instead of Z`);
  }
  const ms = match ? Date.parse(text.replace(' ', 'T').toUpperCase()) : NaN;
  // Date.parse takes February 30 for March 2.
  const day = new Date(Date.UTC(Number(match?.[1]), Number(match?.[2]) - 1, Number(match?.[3]))).getUTCDate();
  if (Number.isNaN(ms) || day !== Number(match?.[3])) {
    throw new SyntaxError('write a time as 2026-11-20T05:00:00Z, 1763614800, -15m or now-1h');
  }
  return ms;
}

function plainDuration(text: string): number | undefined {
  if (!/^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+$/.test(text)) return undefined;
  let total = 0;
  let longest = Infinity;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    const length = unitMs[unit ?? ''] ?? NaN;
    // From long to short and each once, so that 30m1h is not taken for 1h30m by someone who meant 1h.
    if (length >= longest) return undefined;
    longest = length;
    total += Number(amount) * length;
  }
  return total;
}

function isoDuration(text: string): number | undefined {
  const match = /^P(?:(\d+)D)?(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?$/i.exec(text);
  const parts = (match?.slice(1) ?? []) as (string | undefined)[];
  if (parts.every((part) => part === undefined)) return undefined;
  const [days = 0, hours = 0, minutes = 0, seconds = 0] = parts.map((part) => Number(part ?? 0));
  return ((days * 24 + hours) * 60 + minutes) * 60_000 + seconds * 1000;
}

function safe(value: number, what: string): number {
  if (!Number.isSafeInteger(Math.round(value))) throw new SyntaxError(`this ${what} is too large`);
  return Math.round(value);
}
