import type { HubEvent } from '../../amqp/event-message.js';
import { createBackoff } from '../../backoff.js';
import { systemClock } from '../../clock.js';
import { createDispatcher } from '../../handlers/dispatch.js';
import { programHandler } from '../../handlers/program.js';
import type { Log } from '../../log.js';

export interface EventProgram extends AsyncDisposable {
  /** Resolves when the program has said yes or no; "later" is tried again until the signal is aborted. */
  run(event: HubEvent, signal: AbortSignal): Promise<'accepted' | 'rejected'>;
}

/** A program that gets each event as a handler gets a command: its body on standard input, the rest as variables. */
export function eventProgram(file: string, log: Log): EventProgram {
  const handler = programHandler({ name: file, file, checkPermissions: false });
  const dispatcher = createDispatcher({ handlers: [handler], concurrency: 1, log });
  return {
    async run(event, signal) {
      const backoff = createBackoff();
      const { deviceId = '', partition, offset } = event;
      for (;;) {
        const decision = await dispatcher.handle({
          ...event,
          deviceId,
          deliveryCount: 0,
          lockToken: `${partition}/${offset}`,
        });
        switch (decision.outcome) {
          case 'accept':
            return 'accepted';
          case 'reject':
            log.warn('the program rejected an event', {
              deviceId,
              partition,
              offset,
              reason: decision.reason,
            });
            return 'rejected';
          case 'release':
            await systemClock.sleep(backoff.next('soon'), signal);
        }
      }
    },
    [Symbol.asyncDispose]: () => dispatcher[Symbol.asyncDispose](),
  };
}
