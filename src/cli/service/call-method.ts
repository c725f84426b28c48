import { AgentError } from '../../errors.js';
import type { DeviceId } from '../../model.js';
import type { RestClient } from '../../service/rest.js';
import { Twins } from '../../service/twins.js';
import { visible } from '../../visible.js';
import { exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { createPrinter } from '../output.js';
import type { MethodFlags } from './method.js';

/** Calls a method, prints `{"status":200,"payload":…}` or for people the payload, and sets the exit code. */
export async function callMethod(
  io: Io,
  rest: RestClient,
  {
    id,
    name,
    payload,
    flags,
  }: { id: DeviceId; name: string; payload: string | undefined; flags: MethodFlags },
  signal: AbortSignal,
): Promise<void> {
  if (payload !== undefined) checkJson(payload);
  const answer = await new Twins(rest).call(
    id,
    {
      name,
      payload,
      responseTimeoutSeconds: seconds('--response-timeout', flags.responseTimeout, 5),
      connectTimeoutSeconds: seconds('--connect-timeout', flags.connectTimeout, 0),
    },
    signal,
  );
  const status = String(answer.status);
  await createPrinter(io, flags).print({
    json: () => jsonOnOneLine(`{"status":${status},"payload":${answer.payload}}`),
    text: () => visible(answer.payload),
  });
  if (answer.status >= 500) io.exitCode = exitCodes.bug;
  else if (answer.status >= 400) io.exitCode = exitCodes.data;
  if (answer.status >= 400) await io.stderr.write(`the device answered with status ${status}\n`);
}

function checkJson(text: string): void {
  try {
    JSON.parse(text);
  } catch (cause) {
    throw new AgentError('data', `what the method gets is not JSON: ${text}`, {
      cause,
      hint: `a text has quotes of its own: '${JSON.stringify(text)}'`,
    });
  }
}

/** The hub takes whole seconds, up to five minutes. */
function seconds(flag: string, ms: number, least: number): number {
  const value = Math.ceil(ms / 1000);
  if (value >= least && value <= 300) return value;
  throw new AgentError('usage', `${flag} is ${String(least)}s to 5m`);
}
