import type { Clock } from '../clock.js';
import type { Log } from '../log.js';
import { Inbox, type InboxOptions } from './inbox.js';
import { Ledger, type LedgerOptions } from './ledger.js';
import { DurableLog, type LogStats } from './log/durable-log.js';
import type { Files } from './log/files.js';
import { Spool, spoolDefaults, type SpoolOptions } from './spool.js';

export interface StoreOptions {
  /** Is made if it is not there. One process at a time owns it. */
  directory: string;
  spool?: Omit<SpoolOptions, 'clock'> | undefined;
  ledger: Omit<LedgerOptions, 'clock'>;
  inbox?: Omit<InboxOptions, 'clock' | 'replyMessage'> | undefined;
  log?: Log | undefined;
  clock?: Clock | undefined;
  /** Of the log's files. Default: an eighth of what may wait, between 1 and 4 MiB. */
  segmentBytes?: number | undefined;
  /** Default: the disk. */
  files?: Files | undefined;
}

/** What must survive: telemetry that waits, and what is known of commands, in one log. */
export interface Store extends AsyncDisposable {
  readonly spool: Spool;
  readonly ledger: Ledger;
  readonly inbox: Inbox;
  stats(): LogStats;
  /** Reads everything once; what is damaged is found, set aside and reported on the way. */
  verify(signal?: AbortSignal): Promise<{ readonly items: number; readonly damaged: number }>;
  /** Waits for what is being written. */
  close(): Promise<void>;
}

/**
 * Opens a store and owns its directory until it is closed.
 * Errors: `try-again` when another process owns it; `config`, `cannot-create`, `io` as `DurableLog.open`.
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  const { directory, clock, log: say, files } = options;
  const segmentBytes = options.segmentBytes ?? segmentBytesFor(options.spool?.maximumBytes);
  const log = await DurableLog.open({
    directory,
    segmentBytes,
    ...(say && { log: say }),
    ...(clock && { clock }),
    ...(files && { files }),
  });
  try {
    const spool = await Spool.open(log, { ...options.spool, clock });
    const ledger = await Ledger.open(log, spool, { ...options.ledger, clock });
    const { replyMessage } = options.ledger;
    const inbox = await Inbox.open(log, spool, ledger, { replyMessage, ...options.inbox, clock });
    const close = async () => {
      await ledger.close();
      await log.close();
    };
    return {
      spool,
      ledger,
      inbox,
      stats: () => log.stats(),
      verify: (signal) => log.verify(signal),
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await log.close();
    throw error;
  }
}

/** Two files are there even when nothing waits; a message of 256 KiB has to fit into one. */
function segmentBytesFor(maximumBytes = spoolDefaults.maximumBytes): number {
  const mebibyte = 1024 * 1024;
  return Math.min(4 * mebibyte, Math.max(mebibyte, Math.floor(maximumBytes / 8)));
}
