import { encodeFor } from '../../amqp/session.js';
import { AgentError } from '../../errors.js';
import type { DeviceId, TelemetryMessage } from '../../model.js';
import type { Spool } from '../../store/spool.js';
import { exitCodes } from '../exit-codes.js';
import type { InputItem } from '../message-input.js';
import { ExitTally, type Sent } from '../output-sent.js';

export interface QueueJob {
  messages: AsyncIterable<InputItem<TelemetryMessage>>;
  identity: DeviceId;
  /** Whether a message that could not be queued ends the queueing. */
  onError: 'stop' | 'continue';
  print: (sent: readonly Sent[]) => Promise<void>;
}

/** So many may be on their way to the disk, and so many bytes: they share its writes. */
const group = { count: 1_000, bytes: 1024 * 1024 };

/** Puts all messages into the spool, in order, and prints each as soon as it is on disk; returns the exit code. */
export async function queueTelemetry(spool: Spool, job: QueueJob): Promise<number> {
  const encode = encodeFor(job.identity);
  const tally = new ExitTally();
  // Nothing may be on disk that came after a failure that was to stop it.
  const most = job.onError === 'stop' ? { ...group, count: 1 } : group;
  const open = { count: 0, bytes: 0 };
  let reported: Promise<void> = Promise.resolve();

  for await (const { line, message, error } of job.messages) {
    const encoded = message === undefined ? Buffer.alloc(0) : encode(message);
    const sending =
      message === undefined
        ? Promise.resolve({ error })
        : append(spool, job.identity, message.messageId, encoded);
    // Each at its turn, while the input may be waiting for its next line.
    const before = reported;
    reported = (async () => {
      await before;
      const sent = { line, messageId: message?.messageId, ...(await sending) };
      tally.add(sent);
      await job.print([sent]);
    })();
    // Thrown where it is awaited.
    reported.catch(() => undefined);
    open.count++;
    open.bytes += encoded.length;
    if (open.count < most.count && open.bytes < most.bytes) continue;
    await reported;
    if (job.onError === 'stop' && tally.exitCode !== exitCodes.ok) break;
    Object.assign(open, { count: 0, bytes: 0 });
  }
  await reported;
  return tally.exitCode;
}

type Stored = { result: { outcome: 'queued' }; ms: number } | { error: AgentError };

async function append(
  spool: Spool,
  { deviceId, moduleId }: DeviceId,
  messageId: string,
  encoded: Buffer,
): Promise<Stored> {
  const startedAt = performance.now();
  try {
    const { dropped } = await spool.append([{ deviceId, moduleId, messageId, encoded }]);
    if (dropped > 0)
      return { error: new AgentError('try-again', 'the spool is full: dropped as the newest') };
    return { result: { outcome: 'queued' }, ms: performance.now() - startedAt };
  } catch (error) {
    if (error instanceof AgentError) return { error };
    throw error;
  }
}
