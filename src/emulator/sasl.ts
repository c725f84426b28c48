import type { Verdict } from './access.js';

/**
 * What the hub offers before AMQP: none at all is fine too (Node, C#), ANONYMOUS (Event Hubs), MSSBCBS (C), PLAIN with
 * a token as the password (Python), and EXTERNAL for who showed a certificate. But for PLAIN nothing is decided here:
 * who it is, tokens and the certificate tell.
 */
export function offerSasl(
  mechanisms: unknown,
  {
    withCertificate,
    verify,
  }: { withCertificate: boolean; verify: (user: string, password: string) => Verdict },
): void {
  const offered = mechanisms as Mechanisms;
  // Only with ANONYMOUS does rhea let in who begins without SASL.
  offered.enable_anonymous();
  offered['MSSBCBS'] = welcome;
  if (withCertificate) offered['EXTERNAL'] = welcome;
  offered.enable_plain((user, password) => verify(user, password).ok);
}

interface Mechanisms {
  enable_anonymous(): void;
  enable_plain(check: (user: string, password: string) => boolean): void;
  [mechanism: string]: unknown;
}

const welcome = () => ({
  outcome: undefined as boolean | undefined,
  start() {
    this.outcome = true;
  },
});
