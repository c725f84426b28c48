import { once } from 'node:events';

import { anyOf } from '../signals.js';
import { openSocket, type Endpoint } from './socket.js';

/** `AMQP`, protocol 0, version 1.0.0. */
const amqpHeader = Buffer.from([0x41, 0x4d, 0x51, 0x50, 0, 1, 0, 0]);
const patienceMs = 1_500;

/** What it takes for TLS, in the words of who looks for the mistake; undefined when it does not say. */
export async function spokenProtocol(
  { host, port }: Endpoint,
  signal: AbortSignal,
): Promise<string | undefined> {
  using until = anyOf(signal, AbortSignal.timeout(patienceMs));
  try {
    const socket = await openSocket({ host, port, withoutTls: true }, until);
    try {
      // Neither HTTP nor anything else that is expected here waits for more than this before it complains.
      socket.write(Buffer.concat([amqpHeader, Buffer.from('\r\n\r\n')]));
      const [answer] = (await once(socket, 'data', { signal: until })) as [Buffer];
      const text = answer.toString('latin1', 0, 8);
      return Object.entries(greetings).find(([start]) => text.startsWith(start))?.[1];
    } finally {
      socket.destroy();
    }
  } catch {
    return undefined;
  }
}

const greetings: Record<string, string> = {
  HTTP: 'an HTTP server without TLS',
  AMQP: 'AMQP without TLS',
  'SSH-': 'an SSH server',
  '220 ': 'a mail or FTP server',
};
