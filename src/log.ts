/**
 * What the product says while it works. Below the command line nothing prints: it is handed a `Log`.
 *
 * `error`: someone must act. `warn`: it healed or will. `info`: state changes only. `debug`: per message.
 * `trace`: frames.
 */
export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace';

/** Facts that go with a line, as `key=value`; an error under `error` gives its text and, at debug, its stack. */
export type LogFields = Record<string, unknown>;

export interface Log {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  trace(message: string, fields?: LogFields): void;
  /** Whether anyone sees `trace`: there is a line for every frame, which is not to be made for nobody. */
  readonly isTracing?: boolean;
  /** A log whose lines all carry these fields. */
  child(fields: LogFields): Log;
}

const nothing = (): void => {
  /* says nothing */
};

export const silentLog: Log = {
  error: nothing,
  warn: nothing,
  info: nothing,
  debug: nothing,
  trace: nothing,
  child: () => silentLog,
};
