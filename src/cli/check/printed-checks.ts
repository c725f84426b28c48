import type { TimeoutFlags } from '../identity-options.js';
import type { Io } from '../io.js';
import { createPrinter, type OutputFlags } from '../output.js';
import { checkLine, type CheckVerdict } from './check-line.js';
import { Checks } from './checks.js';

/** Checks that print a line each, as the flags say; `also` is told too. */
export function printedChecks(
  io: Io,
  flags: OutputFlags & TimeoutFlags,
  also?: (name: string, verdict: CheckVerdict) => void,
): Checks {
  const printer = createPrinter(io, flags);
  const { hasColors: colors } = io.stdout;
  return new Checks(
    async (name, verdict) => {
      also?.(name, verdict);
      await printer.print(checkLine(name, verdict, { colors }));
    },
    { stop: io.stop, timeoutMs: flags.timeout },
  );
}
