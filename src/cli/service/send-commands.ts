import { AgentError, type ErrorCode } from '../../errors.js';
import type { DeviceId } from '../../model.js';
import { openServiceClient, type ServiceOptions } from '../../service/client.js';
import { openCommandSender, type CommandToSend } from '../../service/commands.js';
import { openFeedbackWait, type FeedbackRecord } from '../../service/feedback.js';
import { anyOf } from '../../signals.js';
import { visible } from '../../visible.js';
import { exitCodeFor, exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import type { InputItem, OutgoingCommand } from '../message-input.js';
import { columns, type Printable, type Printer } from '../output.js';
import { sentError, sentLine, type Sent } from '../output-sent.js';
import { inOrder } from './in-order.js';

export interface CommandJob {
  commands: AsyncIterable<InputItem<OutgoingCommand>>;
  /** For whom what says nothing itself is. */
  to: DeviceId | undefined;
  /** How long to wait for each command's feedback; undefined does not ask for it. */
  waitMs: number | undefined;
  onError: 'stop' | 'continue';
  /** For the connection, and for the hub's answer to each command. */
  timeoutMs: number;
  printer: Printer;
}

/** So many commands may wait for their feedback. */
const mostAtOnce = 50;

/** Sends commands in their order, prints what became of each, and returns the exit code: that of the first failure. */
export async function sendCommands(io: Io, hub: ServiceOptions, job: CommandJob): Promise<number> {
  const patience = () =>
    anyOf(io.stop, ...(Number.isFinite(job.timeoutMs) ? [AbortSignal.timeout(job.timeoutMs)] : []));
  using connecting = patience();
  await using client = await openServiceClient(hub, connecting);
  using opening = patience();
  const feedback = job.waitMs === undefined ? undefined : await openFeedbackWait(client, opening);
  const sender = await openCommandSender(client, opening);
  let exitCode: number = exitCodes.ok;

  // A device that does not answer holds up those that come after it no more than it must.
  const atOnce = job.onError === 'stop' ? 1 : mostAtOnce;
  for await (const [item, result] of inOrder(job.commands, atOnce, resultOf)) {
    await job.printer.print(lineOf(item, recipientOf(item), result));
    const code = exitCodeOf(result);
    if (exitCode === exitCodes.ok) exitCode = code;
    if (code !== exitCodes.ok && job.onError === 'stop') break;
  }
  return exitCode;

  function recipientOf({ message }: InputItem<OutgoingCommand>): DeviceId | undefined {
    return message?.to ?? job.to;
  }

  async function resultOf(item: InputItem<OutgoingCommand>): Promise<CommandResult> {
    if (item.message === undefined) return { error: item.error };
    const to = recipientOf(item);
    if (to !== undefined) return await sendOne({ ...item.message, to });
    const hint = 'add a deviceId, or name the device on the command line';
    return { error: new AgentError('data', 'it names no device', { hint }) };
  }

  async function sendOne(message: CommandToSend): Promise<CommandResult> {
    const startedAt = performance.now();
    feedback?.expect(message.messageId);
    const ack = feedback === undefined ? message.ack : 'full';
    using answering = patience();
    const result = await sender.send({ ...message, ack }, answering);
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
  to: DeviceId | undefined,
  result: CommandResult,
): Printable {
  const sent = { line, messageId: message?.messageId };
  if (!('record' in result)) return sentLine({ ...sent, to, ...result });
  const { record } = result;
  const { word } = meanings[record.statusCode];
  const ms = Math.round(result.ms);
  return {
    json: () => jsonOnOneLine(JSON.stringify({ ...sent, ...to, outcome: word, ms, feedback: record })),
    text: (look) =>
      columns(
        [
          word,
          visible(to?.deviceId ?? ''),
          visible(record.originalMessageId),
          `${String(ms)} ms`,
          visible(record.description),
        ],
        [9, 10, 26, 7],
        look.columns,
      ),
  };
}
