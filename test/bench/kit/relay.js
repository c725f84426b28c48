/**
 * A wire of some length: every byte arrives so many milliseconds late, and as many as like travel at once. The TCP
 * handshake is not delayed.
 *
 *     node relay.js HOST TARGET-HOST DELAY-MS      port 5671 on both
 */
import { connect, createServer } from 'node:net';

const [host, target, delayMs] = process.argv.slice(2);
const port = 5671;

createServer({ noDelay: true, allowHalfOpen: true }, (near) => {
  const far = connect({ host: target, port, noDelay: true, allowHalfOpen: true });
  pass(near, far);
  pass(far, near);
}).listen(port, host, () => process.stdout.write('ready\n'));

// With who started it.
process.stdin.resume().on('end', () => process.exit());

function pass(from, to) {
  const late = (act) => setTimeout(act, Number(delayMs));
  from.on('data', (chunk) => late(() => to.write(chunk)));
  from.on('end', () => late(() => to.end()));
  from.on('error', () => to.destroy());
}
