import { AgentError, type ErrorCode } from '../../errors.js';
import type { DeviceId } from '../../model.js';
import { openServiceClient, type ServiceOptions } from '../../service/client.js';
import { openCommandSender } from '../../service/commands.js';
import { openFeedbackWait, type FeedbackRecord } from '../../service/feedback.js';
import { anyOf } from '../../signals.js';
import { visible } from '../../visible.js';
import { exitCodeFor, exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import type { InputItem, OutgoingCommand } from '../message-input.js';
import { columns, type Printable, type Printer } from '../output.js';
import { sentError, sentLine, type Sent } from '../output-sent.js';

export interface CommandJob {
  commands: AsyncIterable<InputItem<OutgoingCommand>>;
  to: DeviceId;
  /** How long to wait for each command's feedback; undefined does not ask for it. */
  waitMs: number | undefined;
  onError: 'stop' | 'continue';
  /** For the connection, and for the hub's answer to each command. */
  timeoutMs: number;
  printer: Printer;
}

/** Sends commands one after the other, prints what became of each, and returns the exit code: that of the first failure. */
export async function sendCommands(io: Io, hub: ServiceOptions, job: CommandJob): Promise<number> {
  const patience = () =>
    anyOf(io.stop, ...(Number.isFinite(job.timeoutMs) ? [AbortSignal.timeout(job.timeoutMs)] : []));
  using connecting = patience();
  await using client = await openServiceClient(hub, connecting);
  using opening = patience();
  const feedback = job.waitMs === undefined ? undefined : await openFeedbackWait(client, opening);
  const sender = await openCommandSender(client, opening);
  let exitCode: number = exitCodes.ok;

  for await (const item of job.commands) {
    const result = item.message === undefined ? { error: item.error } : await sendOne(item.message);
    await job.printer.print(lineOf(item, job.to, result));
    const code = exitCodeOf(result);
    if (exitCode === exitCodes.ok) exitCode = code;
    if (code !== exitCodes.ok && job.onError === 'stop') break;
  }
  return exitCode;

  async function sendOne(message: OutgoingCommand): Promise<CommandResult> {
    const startedAt = performance.now();
    feedback?.expect(message.messageId);
    const ack = feedback === undefined ? message.ack : 'full';
    using answering = patience();
    const result = await sender.send({ ...message, to: job.to, ack }, answering);
    const ms = performance.now() - startedAt;
    if (feedback === undefined || result.outcome !== 'accepted') return { result, ms };
    const limit = AbortSignal.timeout(job.waitMs ?? 0);
    using until = anyOf(io.stop, limit);
    try {
      const record = await feedback.next(message.messageId, until);
      return { record, ms: performance.now() - startedAt };
    } catch (error) {
      if (!limit.aborted || io.stop.aborted) throw error;
      return {
        error: new AgentError('unavailable', `no feedback within ${String((job.waitMs ?? 0) / 1000)} s`, {
          hint: 'the command stays queued until the device takes it or it expires',
        }),
      };
    }
  }
}

/** The hub's answer, the device's answer as the feedback has it, or why there is neither. */
type CommandResult =
  Extract<Sent, { ms: number }> | { record: FeedbackRecord; ms: number } | { error: AgentError };

/** What each feedback means: the word that is printed, and the exit code. */
const meanings: Record<FeedbackRecord['statusCode'], { word: string; code: ErrorCode | undefined }> = {
  Success: { word: 'completed', code: undefined },
  Rejected: { word: 'rejected', code: 'data' },
  Expired: { word: 'expired', code: 'try-again' },
  DeliveryCountExceeded: { word: 'delivered too often', code: 'try-again' },
  Purged: { word: 'purged', code: 'try-again' },
};

function exitCodeOf(result: CommandResult): number {
  const code = 'record' in result ? meanings[result.record.statusCode].code : sentError(result)?.code;
  return code === undefined ? exitCodes.ok : exitCodeFor(code);
}

/**
 *     {"line":1,"messageId":"c1","deviceId":"dev1","outcome":"accepted","ms":12}
 *     {"messageId":"c1","deviceId":"dev1","outcome":"completed","ms":64,"feedback":{"statusCode":"Success",…}}
 */
function lineOf(
  { line, message }: InputItem<OutgoingCommand>,
  to: DeviceId,
  result: CommandResult,
): Printable {
  const sent = { line, messageId: message?.messageId };
  if (!('record' in result)) return sentLine({ ...sent, ...result });
  const { record } = result;
  const { word } = meanings[record.statusCode];
  const ms = Math.round(result.ms);
  return {
    json: () => jsonOnOneLine(JSON.stringify({ ...sent, ...to, outcome: word, ms, feedback: record })),
    text: (look) =>
      columns(
        [
          word,
          visible(to.deviceId),
          visible(record.originalMessageId),
          `${String(ms)} ms`,
          visible(record.description),
        ],
        [9, 10, 26, 7],
        look.columns,
      ),
  };
}
