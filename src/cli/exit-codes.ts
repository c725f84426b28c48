import type { ErrorCode } from '../errors.js';

/**
 * Exit codes of every command: sysexits.h, because handlers speak the same numbers and systemd can act on them.
 * Besides these a command exits 130 or 143 when SIGINT or SIGTERM interrupted it.
 */
export const exitCodes = {
  ok: 0,
  usage: 64,
  data: 65,
  'no-input': 66,
  'no-device': 67,
  'host-unknown': 68,
  unavailable: 69,
  bug: 70,
  'cannot-create': 73,
  io: 74,
  'try-again': 75,
  protocol: 76,
  refused: 77,
  config: 78,
} as const satisfies Record<ErrorCode | 'ok', number>;

/** What each code means to the person who reads `$?`. */
export const exitCodeMeanings: Record<keyof typeof exitCodes, string> = {
  ok: 'done',
  usage: 'the command line is wrong',
  data: 'the message or the input is wrong, or the hub rejected it',
  'no-input': 'a file to read is missing',
  'no-device': 'the hub does not know this device',
  'host-unknown': 'the host name is unknown (DNS)',
  unavailable: 'refused, unreachable, or no answer in time',
  bug: 'an error that nobody expected: please report it',
  'cannot-create': 'a file or directory cannot be made',
  io: 'reading or writing failed',
  'try-again': 'throttled, over quota, released: try again later',
  protocol: 'TLS is not trusted, or the peer does not speak AMQP',
  refused: 'the hub refused the key, the token or the device',
  config: 'the configuration or the connection string is wrong',
};

/** The exit code for a kind of error. */
export function exitCodeFor(code: ErrorCode): number {
  return exitCodes[code];
}

/** The kind of error behind an exit code; undefined for 0 and for what is not in the table. */
export function errorCodeFor(exitCode: number): ErrorCode | undefined {
  const found = Object.entries(exitCodes).find(([, number]) => number === exitCode)?.[0];
  return found === 'ok' ? undefined : (found as ErrorCode | undefined);
}
