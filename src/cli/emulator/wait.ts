import { setTimeout as delay } from 'node:timers/promises';
import { Option } from 'commander';

import { AgentError } from '../../errors.js';
import { formatDuration } from '../../units.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { durationOrForever } from '../values.js';
import { type UrlFlags, addUrlOption, control } from './control-client.js';

interface WaitFlags extends UrlFlags {
  timeout: number;
}

/** `iothub-emulator wait`. */
export function waitCommand(io: Io): Subcommand {
  const command = new Subcommand('wait')
    .description('Waits until an emulator is ready.')
    .examples('iothub-emulator start -q & iothub-emulator wait && npm test')
    .exits(['ok', 'it is ready'], ['unavailable', 'it was not ready in time'])
    .addOption(
      new Option('--timeout <dur>', 'give up after this long; 0 waits for ever')
        .argParser(durationOrForever)
        .default(30_000, '30s'),
    );
  return addUrlOption(command).action(async (flags: WaitFlags) => {
    const { stop } = io;
    const deadline = performance.now() + flags.timeout;
    while (!(await isReady(flags, stop))) {
      stop.throwIfAborted();
      if (performance.now() > deadline) {
        throw new AgentError(
          'unavailable',
          `no emulator was ready at ${flags.url} within ${formatDuration(flags.timeout)}`,
        );
      }
      await delay(pollMs, undefined, { signal: stop });
    }
  });
}

const pollMs = 100;

async function isReady(flags: WaitFlags, stop: AbortSignal): Promise<boolean> {
  try {
    await control(flags, '/health', { signal: AbortSignal.any([stop, AbortSignal.timeout(1000)]) });
    return true;
  } catch (error) {
    if (error instanceof AgentError) return false;
    throw error;
  }
}
