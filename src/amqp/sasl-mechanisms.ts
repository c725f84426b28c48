import { AgentError } from '../errors.js';
import { rejectionOf } from '../signals.js';
import { toAgentError } from './errors.js';
import { describeFrame } from './guard/describe.js';
import { Frame } from './guard/frame.js';
import { Walker } from './guard/values.js';
import { openSocket, type Endpoint } from './socket.js';

/** `AMQP`, protocol 3 (SASL), version 1.0.0. */
const saslHeader = Buffer.from([0x41, 0x4d, 0x51, 0x50, 3, 1, 0, 0]);
const mostBytes = 4_096;

/**
 * The SASL mechanisms that a server offers to who asks for SASL, which we never do; undefined when it has none. On a
 * connection of its own, that ends with the question.
 */
export async function saslMechanisms(endpoint: Endpoint, signal: AbortSignal): Promise<string[] | undefined> {
  const socket = await openSocket(endpoint, signal);
  try {
    socket.write(saslHeader);
    let received = Buffer.alloc(0);
    const read = async (): Promise<string[] | undefined> => {
      for await (const chunk of socket as AsyncIterable<Buffer>) {
        received = Buffer.concat([received, chunk]);
        if (received.length >= 8 && !received.subarray(0, 8).equals(saslHeader)) return undefined;
        const offered = mechanismsIn(received.subarray(8));
        if (offered !== undefined || received.length > mostBytes) return offered;
      }
      throw new AgentError('unavailable', 'the hub closed the connection when it was asked for SASL');
    };
    return await Promise.race([read(), rejectionOf(signal)]);
  } catch (error) {
    throw toAgentError(error, endpoint);
  } finally {
    socket.destroy();
  }
}

/** Of the first frame, once it is whole. */
function mechanismsIn(bytes: Buffer): string[] | undefined {
  if (bytes.length < 8) return undefined;
  const size = bytes.readUInt32BE(0);
  if (size < 8 || bytes.length < size) return undefined;
  const frame = new Frame(new Walker(8));
  frame.read(bytes, 0, size);
  const offered = describeFrame(frame)['sasl-server-mechanisms'];
  return [offered].flat().map(String);
}
