import { readTwin } from '../../agent/twin-document.js';
import { AgentError } from '../../errors.js';
import type { Io } from '../io.js';
import { createPrinter } from '../output.js';
import type { DeviceHub } from './hub.js';
import { askTwin } from './twin-ask.js';
import type { TwinReportFlags } from './twin.js';

/** Reports a patch, and prints the `$version` that the reported properties have then. */
export async function reportPatch(
  io: Io,
  hub: DeviceHub,
  patch: string,
  flags: TwinReportFlags,
): Promise<void> {
  const { version, ms } = await askTwin(io, hub, flags, async (twin, signal) => {
    if (flags.ifVersion !== undefined) checkVersion(await twin.get(signal), flags.ifVersion);
    const startedAt = performance.now();
    const reported = await twin.report(patch, signal);
    return { version: reported, ms: Math.round(performance.now() - startedAt) };
  });
  await createPrinter(io, flags).print({
    json: () => JSON.stringify({ outcome: 'reported', version, ms }),
    text: () => `reported  version ${version ?? 'unknown'}  ${ms} ms`,
  });
}

/** The hub offers devices no condition, but nobody else writes what this device reports. */
function checkVersion(twin: Buffer, wanted: number): void {
  const { version } = readTwin(twin).reported;
  if (version === wanted) return;
  throw new AgentError('data', `the reported properties have the version ${version}, not ${wanted}`, {
    hint: 'something else of this device has reported; look with twin get --path reported',
  });
}
