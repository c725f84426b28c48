import type { HubSession } from '../amqp/session.js';
import type { DeliveredCommand } from '../amqp/command-link.js';
import type { CommandDecision, Dispatcher } from '../handlers/dispatch.js';
import type { Log } from '../log.js';
import type { Command, CommandOutcome } from '../model.js';
import { aborted, anyOf } from '../signals.js';

/**
 * Gives every command that the hub delivers to the dispatcher and the hub its outcome, for as long as the session
 * holds. Credit is the number of free handler slots, so that no lock runs out in a queue of ours. After `stopping`
 * aborts no command is taken, those in hand are finished, and it resolves.
 */
export async function serveCommands(
  { commands, over }: Pick<HubSession, 'commands' | 'over'>,
  dispatcher: Pick<Dispatcher, 'freeSlots' | 'onFreeSlots' | 'take' | 'settled'>,
  {
    stopping,
    log,
    onSettled,
  }: { stopping: AbortSignal; log: Log; onSettled?: (decision: CommandDecision) => void },
): Promise<void> {
  let inHand = 0;
  let onIdle = (): void => undefined;
  let isTopUpDue = false;
  const topUp = () => {
    isTopUpDue = false;
    if (!stopping.aborted) commands.grant(dispatcher.freeSlots - commands.credit);
  };
  /** For all the slots that become free in a turn of the event loop at once: each grant is a frame. */
  const topUpSoon = () => {
    if (!isTopUpDue) setImmediate(topUp);
    isTopUpDue = true;
  };

  const take = ({ command, settle }: DeliveredCommand) => {
    inHand++;
    const onDecided = (decision: CommandDecision) => {
      inHand--;
      tell(command, settle, decision);
      if (inHand === 0) onIdle();
    };
    dispatcher.take(command, onDecided, over);
  };

  const tell = (command: Command, settle: DeliveredCommand['settle'], decision: CommandDecision) => {
    const { outcome, handler, elapsedMs } = decision;
    const facts = { message: command.messageId, outcome, handler, ms: Math.round(elapsedMs) };
    if (!settle(outcomeOf(decision))) {
      log.info('the connection was lost before the hub heard of a command; it will deliver it again', facts);
      return;
    }
    log.debug('command settled', facts);
    dispatcher.settled(decision);
    onSettled?.(decision);
  };

  commands.onCommand((delivered) => {
    // Left unsettled, a command that comes too late goes back to the queue when the connection closes.
    if (stopping.aborted) return;
    const { command } = delivered;
    log.debug('command received', { message: command.messageId, bytes: command.body.length });
    take(delivered);
  });
  using _freed = dispatcher.onFreeSlots(topUpSoon);
  topUp();

  using either = anyOf(stopping, over);
  await aborted(either);
  over.throwIfAborted();
  const idle = new Promise<void>((resolve) => {
    onIdle = resolve;
    if (inHand === 0) resolve();
  });
  await Promise.race([idle, aborted(over)]);
  commands.flush();
}

/** Only what the hub is told: a decision has more. */
function outcomeOf(decision: CommandOutcome): CommandOutcome {
  return decision.outcome === 'accept'
    ? { outcome: 'accept' }
    : { outcome: decision.outcome, reason: decision.reason };
}
