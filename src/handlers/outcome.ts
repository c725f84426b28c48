import type { CommandOutcome, CommandReply } from '../model.js';
import { faultLimit, type Answer, type Handler } from './handler.js';
import { plainText } from './output.js';

/** What a handler's answer means for the command. */

/** It becomes the description of the rejection. */
const longestReason = 256;

/** The outcome of a run, by a handler that has failed on this command `faults` times by now. */
export function outcomeOf(answer: Answer, handler: Pick<Handler, 'afterCrash'>, faults = 0): CommandOutcome {
  const reason = answer.reason === undefined ? undefined : plainText(answer.reason, longestReason);
  switch (answer.outcome) {
    case 'accept':
      return { outcome: 'accept' };
    case 'reject':
      return { outcome: 'reject', reason };
    case 'release':
      if (answer.decidedBy === 'stopping' && handler.afterCrash === 'reject') {
        return {
          outcome: 'reject',
          reason: 'the agent stopped while its handler ran; what it did is unknown',
        };
      }
      return faults >= faultLimit
        ? { outcome: 'reject', reason: plainText(`failed ${faults} times: ${reason ?? ''}`, longestReason) }
        : { outcome: 'release', reason };
  }
}

/** What becomes of a command whose handler was running when the agent ended; undefined: it runs again. */
export function outcomeAfterCrash(
  handler: Pick<Handler, 'afterCrash'>,
  faults: number,
): CommandOutcome | undefined {
  if (handler.afterCrash === 'reject') {
    return { outcome: 'reject', reason: 'the agent ended while its handler ran; what it did is unknown' };
  }
  return faults < faultLimit
    ? undefined
    : { outcome: 'reject', reason: `failed ${faults} times: the agent ended while its handler ran` };
}

/** More than a program's output, and with all that goes with it below the 256 KiB of a message. */
const longestReplyBytes = 192 * 1024;

/** What telemetry says about the outcome; undefined when it says nothing. `onCut` hears of a reply that is too large. */
export function replyTo(
  outcome: CommandOutcome,
  { replies = 'never' }: Pick<Handler, 'replies'>,
  { reply, replyBytes }: Pick<Answer, 'reply' | 'replyBytes'>,
  onCut: (bytes: number) => void,
): CommandReply | undefined {
  if (outcome.outcome === 'release' || replies === 'never') return undefined;
  if (reply === undefined) return replies === 'always' ? { body: Buffer.alloc(0) } : undefined;
  const wholeBytes = replyBytes ?? (reply.length > longestReplyBytes ? reply.length : undefined);
  if (wholeBytes !== undefined) onCut(wholeBytes);
  return { body: reply.subarray(0, longestReplyBytes), wholeBytes };
}
