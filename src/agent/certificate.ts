import type { HubSession } from '../amqp/session.js';
import type { Clock } from '../clock.js';
import { AgentError, errorText } from '../errors.js';
import type { ClientCertificate } from '../identity/certificate.js';
import type { Log } from '../log.js';
import { anyOf } from '../signals.js';
import { formatDuration } from '../units.js';

export interface CertificateOptions {
  /** Reads the certificate as it is on disk now. Errors: `config`, `no-input`, `io`. */
  read: () => Promise<ClientCertificate>;
  /** How long before it expires people are told, once a day. */
  warnBeforeMs: number;
  clock: Clock;
  log: Log;
}

const dayMs = 86_400_000;
/** How often the wall clock is asked; it may be set at any time. */
const askClockEveryMs = 3_600_000;

/** The certificate of a device, which somebody else renews on disk. */
export class DeviceCertificate {
  readonly #options: CertificateOptions;
  #current: ClientCertificate | undefined;
  #warnedAt = -Infinity;
  /** Why the one on disk could not be read the last time. */
  #unreadable: string | undefined;

  constructor(options: CertificateOptions) {
    this.#options = options;
  }

  /** The one that the last connection was opened with. */
  get current(): ClientCertificate | undefined {
    return this.#current;
  }

  /** For the next connection: as it is on disk, or the one before while that cannot be read. */
  async forConnection(): Promise<ClientCertificate> {
    const before = this.#current;
    const now = before === undefined ? await this.#options.read() : ((await this.#another(before)) ?? before);
    if (before !== undefined && now !== before) {
      const { subject, expiresAt } = now;
      this.#options.log.info('there is a new certificate', { subject, expires: iso(expiresAt) });
      this.#warnedAt = -Infinity;
    }
    this.#current = now;
    this.warn();
    return now;
  }

  /** Says that it expires soon, has expired, or is not valid yet; once a day. */
  warn(): void {
    const { clock, log, warnBeforeMs } = this.#options;
    if (this.#current === undefined || clock.monotonic() - this.#warnedAt < dayMs) return;
    const { subject, validFrom, expiresAt } = this.#current;
    const now = clock.now();
    if (now >= validFrom && expiresAt - now > warnBeforeMs) return;
    this.#warnedAt = clock.monotonic();
    if (now < validFrom) {
      const clockSays = iso(now);
      log.warn('the certificate is not valid yet, or the clock is wrong', {
        subject,
        validFrom: iso(validFrom),
        clockSays,
      });
    } else if (now >= expiresAt) {
      log.error('the certificate has expired; renew it', { subject, expired: iso(expiresAt) });
    } else {
      const hourMs = 3_600_000;
      const leftMs = expiresAt - now;
      const within = formatDuration(leftMs > hourMs ? Math.floor(leftMs / hourMs) * hourMs : leftMs);
      log.warn('the certificate expires soon; renew it', { subject, expires: iso(expiresAt), within });
    }
  }

  /**
   * Resolves when the current one is about to expire and another is on disk. Until then it is left alone: the hub may
   * not know the other one yet, and every new connection finds it in any case.
   */
  async renewed(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    const { current } = this;
    if (current === undefined) return;
    const aheadMs = Math.min((current.expiresAt - current.validFrom) / 10, dayMs);
    const lookAgainMs = Math.min(Math.max(aheadMs / 100, 1_000), 60_000);
    for (;;) {
      const leftMs = current.expiresAt - aheadMs - clock.now();
      if (leftMs <= 0 && (await this.#another(current)) !== undefined) return;
      await clock.sleep(leftMs > 0 ? Math.min(leftMs, askClockEveryMs) : lookAgainMs, signal);
      this.warn();
    }
  }

  /** What is on disk, if it is another one, and if it can be read: somebody may be writing it. */
  async #another(than: ClientCertificate): Promise<ClientCertificate | undefined> {
    try {
      const found = await this.#options.read();
      this.#unreadable = undefined;
      return found.thumbprints.sha256 === than.thumbprints.sha256 ? undefined : found;
    } catch (error) {
      const text = errorText(error);
      if (text !== this.#unreadable)
        this.#options.log.warn('the certificate on disk cannot be used; the one before still is', { error });
      this.#unreadable = text;
      return undefined;
    }
  }
}

/**
 * Does `work` on the session. When the certificate that it lives on is about to expire and a new one is on disk, what
 * was begun is finished, and the session ends with an error to connect again at once.
 */
export async function untilCertificateRenewed(
  session: Pick<HubSession, 'over' | 'fail'>,
  certificate: DeviceCertificate | undefined,
  stopping: AbortSignal,
  work: (stopping: AbortSignal) => Promise<void>,
): Promise<void> {
  if (certificate === undefined) return work(stopping);
  const renewed = new AbortController();
  const done = new AbortController();
  using until = anyOf(stopping, renewed.signal);
  using watching = anyOf(done.signal, session.over);
  certificate.renewed(watching).then(
    () => {
      renewed.abort();
    },
    () => undefined,
  );
  try {
    await work(until);
  } finally {
    done.abort();
  }
  if (!renewed.signal.aborted || stopping.aborted) return;
  const reason = new AgentError('unavailable', 'connecting anew, with the renewed certificate');
  session.fail(reason);
  throw reason;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
