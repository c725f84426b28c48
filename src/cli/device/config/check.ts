import { stat } from 'node:fs/promises';

import type { ParsedConfig } from '../../../daemon/config.js';
import { ConfigError, keyText, type PlacedProblem } from '../../../daemon/config-document.js';
import type { SecretSource } from '../../../daemon/config-secret.js';
import type { Path } from '../../../daemon/config-positions.js';
import { overshadowed, placeHandlers } from '../../../daemon/handlers.js';
import { AgentError, errorText } from '../../../errors.js';
import type { Log } from '../../../log.js';
import { visible } from '../../../visible.js';
import { readConfigFile } from '../../config-options.js';
import { endpointOf } from '../../endpoint.js';
import { exitCodeFor, exitCodes } from '../../exit-codes.js';
import { readAuthority, readDeviceIdentity } from '../../identity-options.js';
import { isGiven } from '../../identity-source.js';
import type { Io } from '../../io.js';
import { jsonOnOneLine } from '../../json-text.js';
import type { Printer } from '../../output.js';
import type { OverrideFlags } from './overrides.js';

/** What is wrong, or may be. What stands in no file has no place. */
type Finding = { severity: 'error' | 'warning' } & Pick<PlacedProblem, 'key' | 'what'> &
  Partial<PlacedProblem>;

/**
 * Says everything that is wrong in a configuration, and with the handlers, files and secrets that it names. It speaks
 * to no hub. Returns the exit code.
 */
export async function checkConfig(io: Io, flags: OverrideFlags, log: Log, printer: Printer): Promise<number> {
  const parsed = await readConfigFile(io, flags).catch((error: unknown) => {
    if (error instanceof ConfigError) return error;
    throw error;
  });
  const findings =
    parsed instanceof ConfigError
      ? parsed.problems.map((problem) => ({ severity: 'error' as const, ...problem }))
      : await findingsIn(io, parsed, flags, log);
  for (const finding of findings) {
    await printer.print({
      json: () => jsonOnOneLine(JSON.stringify(finding)),
      text: () => visible(lineOf(finding)),
    });
  }
  const errors = findings.filter(({ severity }) => severity === 'error').length;
  const warnings = findings.length - errors;
  const files = parsed instanceof ConfigError ? undefined : parsed.files;
  await printer.print({
    json: () => jsonOnOneLine(JSON.stringify({ ok: errors === 0, errors, warnings, files })),
    text: () => visible(summary(errors, warnings, files)),
  });
  return errors === 0 ? exitCodes.ok : exitCodeFor('config');
}

/** As compilers write it, for editors that know this form. */
function lineOf({ severity, file, line, column, key, what }: Finding): string {
  const place = file === undefined ? [] : [[file, line, column].join(':')];
  return [...place, severity, ...(key === '' ? [] : [key]), what].join(': ');
}

function summary(errors: number, warnings: number, files: readonly string[] | undefined): string {
  const counts = `${String(errors)} ${errors === 1 ? 'error' : 'errors'}, ${String(warnings)} ${warnings === 1 ? 'warning' : 'warnings'}`;
  if (errors > 0) return counts;
  const what = files === undefined || files.length === 0 ? 'the defaults' : files.join(', ');
  return `ok: ${what}${warnings === 0 ? '' : ` (${counts})`}`;
}

async function findingsIn(io: Io, parsed: ParsedConfig, flags: OverrideFlags, log: Log): Promise<Finding[]> {
  const find = (path: Path, what: string, severity: Finding['severity'] = 'error'): Finding => ({
    severity,
    ...parsed.placeOf(path),
    key: keyText(path),
    what,
  });
  return [
    ...(await identityFindings(io, parsed, flags, find)),
    ...(await wayFindings(io, parsed, flags, { find, log })),
    ...(await handlerFindings(parsed, log, find)),
    ...unreachable(parsed, find),
  ];
}

type Find = (path: Path, what: string, severity?: Finding['severity']) => Finding;

/** Who the device is, and with what it proves that. */
async function identityFindings(
  io: Io,
  { config: { hub } }: ParsedConfig,
  flags: OverrideFlags,
  find: Find,
): Promise<Finding[]> {
  const variable = 'IOTHUB_DEVICE_CONNECTION_STRING';
  const stdin = flags.connectionString !== undefined;
  const given =
    isGiven(io, { stdin, file: flags.connectionStringFile, variable }) || flags.host !== undefined;
  const path = ['hub', hub.host === undefined ? 'connection_string' : 'host'];
  if (!given && isForTheService(io, hub.connectionString)) return [find(path, forTheService, 'warning')];
  try {
    const identity = await readDeviceIdentity(io, flags, hub);
    const { key, passphrase } = hub.certificate ?? {};
    if (flags.cert === undefined && (isForTheService(io, key) || isForTheService(io, passphrase)))
      return [find(['hub', 'x509'], forTheService, 'warning')];
    return (await failure(async () => identity.certificate?.read())).map((what) =>
      find(['hub', 'x509'], what),
    );
  } catch (error) {
    const isNamed = given || hub.connectionString !== undefined || hub.host !== undefined;
    return [find(path, textOf(error), isNamed ? 'error' : 'warning')];
  }
}

/** The files and secrets on the way to the hub. */
async function wayFindings(
  io: Io,
  { config: { hub } }: ParsedConfig,
  flags: OverrideFlags,
  { find, log }: { find: Find; log: Log },
): Promise<Finding[]> {
  const ca = await failure(() => readAuthority({ ca: flags.ca ?? hub.ca }));
  const findings = ca.map((what) => find(['hub', 'ca'], what));
  if (isForTheService(io, hub.proxy)) return [...findings, find(['hub', 'proxy'], forTheService, 'warning')];
  const withoutCa = { flags: { ...flags, ca: undefined }, configured: { ...hub, ca: undefined } };
  const way = await failure(() =>
    endpointOf(io, hub.host ?? 'localhost', { side: 'device', log, ...withoutCa }),
  );
  return [...findings, ...way.map((what) => find(['hub', 'proxy'], what))];
}

const forTheService = 'not looked at: systemd hands a credential to the service only';

function isForTheService({ env }: Io, source: SecretSource | undefined): boolean {
  return source?.from === 'credential' && (env['CREDENTIALS_DIRECTORY'] ?? '') === '';
}

async function handlerFindings({ config }: ParsedConfig, log: Log, find: Find): Promise<Finding[]> {
  const findings: Finding[] = [];
  const placed = await placeHandlers(config, { log });
  for (const [at, { config: handler, handler: made, refused }] of placed.entries()) {
    const isFound = at >= config.handlers.length;
    const path = isFound
      ? ['commands', 'handlers_dir']
      : ['handlers', at, handler.form === 'module' ? 'module' : 'exec'];
    if (refused !== undefined) findings.push(find(path, isFound ? `${handler.name}: ${refused}` : refused));
    if (handler.form !== 'module' && handler.cwd !== undefined) {
      const { cwd } = handler;
      const isDirectory = await stat(cwd).then(
        (stats) => stats.isDirectory(),
        () => false,
      );
      if (!isDirectory) findings.push(find(['handlers', at, 'cwd'], `${cwd} is no directory`));
    }
    await made[Symbol.asyncDispose]();
  }
  for (const { file, by } of overshadowed(config)) {
    findings.push(
      find(['commands', 'handlers_dir'], `${file} is passed over, for ${by} has its name`, 'warning'),
    );
  }
  return findings;
}

/** Handlers behind one that takes everything. */
function unreachable({ config: { handlers } }: ParsedConfig, find: Find): Finding[] {
  return handlers.flatMap((handler, at) => {
    const before = handlers
      .slice(0, at)
      .find(({ on, match }) => on === handler.on && Object.values(match).every((one) => one === undefined));
    if (before === undefined) return [];
    return [
      find(
        ['handlers', at],
        `it gets nothing: "${before.name}" before it takes every ${handler.on}`,
        'warning',
      ),
    ];
  });
}

/** What is thrown, as text; nothing when all is well. */
async function failure(work: () => Promise<unknown>): Promise<string[]> {
  try {
    await work();
    return [];
  } catch (error) {
    return [textOf(error)];
  }
}

function textOf(error: unknown): string {
  const hint = error instanceof AgentError ? error.hint?.replaceAll('\n', '; ') : undefined;
  return [errorText(error), hint].filter((text) => text !== undefined).join('; ');
}
