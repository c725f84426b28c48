import { AgentError } from '../../errors.js';
import type { DeviceId } from '../../model.js';
import { Registry, type DeviceFields, type RegisteredDevice } from '../../service/registry.js';
import type { RestClient } from '../../service/rest.js';
import { visible } from '../../visible.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { columns, createPrinter, type Printable } from '../output.js';
import { printJson } from './change-twin.js';
import { patternOf } from './pattern.js';
import type {
  ConnectionStringFlags,
  DeviceChangeFlags,
  DeviceFlags,
  DeviceListFlags,
  DeviceShowFlags,
} from './device.js';

interface Named<Flags> {
  deviceId: string;
  flags: Flags;
}

export async function addDevice(
  io: Io,
  rest: RestClient,
  { deviceId, flags }: Named<DeviceChangeFlags>,
  signal: AbortSignal,
): Promise<void> {
  const { edge, disable = false } = flags;
  const fields: DeviceFields = {
    authentication: authenticationOf(flags) ?? { type: 'sas' },
    ...(disable ? { status: 'disabled' } : {}),
    ...(edge === true ? { capabilities: { iotEdge: true } } : {}),
  };
  const device = await new Registry(rest).add(idOf(deviceId, flags), fields, signal);
  await printDevice(io, device, flags);
}

export async function setDevice(
  io: Io,
  rest: RestClient,
  { deviceId, flags }: Named<DeviceChangeFlags>,
  signal: AbortSignal,
): Promise<void> {
  const { enable, disable, reason } = flags;
  const authentication = authenticationOf(flags);
  const fields: DeviceFields = {
    ...(enable === true ? { status: 'enabled', statusReason: null } : {}),
    ...(disable === true ? { status: 'disabled' } : {}),
    ...(reason === undefined ? {} : { statusReason: reason }),
    ...(authentication === undefined ? {} : { authentication }),
  };
  if (Object.keys(fields).length === 0) throw new AgentError('usage', 'there is nothing to change');
  const device = await new Registry(rest).set(idOf(deviceId, flags), fields, signal);
  await printDevice(io, device, flags);
}

export async function showDevice(
  io: Io,
  rest: RestClient,
  { deviceId, flags }: Named<DeviceShowFlags>,
  signal: AbortSignal,
): Promise<void> {
  await printDevice(io, await new Registry(rest).get(idOf(deviceId, flags), signal), flags);
}

export async function removeDevices(
  rest: RestClient,
  { deviceIds, flags }: { deviceIds: readonly string[]; flags: DeviceFlags },
  signal: AbortSignal,
): Promise<void> {
  if (flags.module !== undefined && deviceIds.length > 1) {
    throw new AgentError('usage', '--module is of one device, and there are several');
  }
  for (const deviceId of deviceIds) await new Registry(rest).remove(idOf(deviceId, flags), signal);
}

/** Lists by a query, which has pages; the registry's own list ends with the thousandth. */
export async function listDevices(
  io: Io,
  rest: RestClient,
  { pattern, flags }: { pattern: string | undefined; flags: DeviceListFlags },
  signal: AbortSignal,
): Promise<void> {
  const wanted = pattern === undefined ? () => true : patternOf(pattern);
  const printer = createPrinter(io, flags);
  const condition = flags.where === undefined ? '' : ` WHERE ${flags.where}`;
  let left = flags.top ?? Infinity;
  for await (const twin of new Registry(rest).query(`SELECT * FROM devices${condition}`, signal)) {
    if (!wanted(String(twin['deviceId']))) continue;
    await printer.print(twinLine(twin));
    if (--left === 0 || io.stdout.readerGone.aborted) break;
  }
}

export async function printConnectionString(
  io: Io,
  rest: RestClient,
  { deviceId, flags, host }: Named<ConnectionStringFlags> & { host: string },
  signal: AbortSignal,
): Promise<void> {
  const { module: moduleId, secondary = false, gateway } = flags;
  const { authentication } = await new Registry(rest).get(idOf(deviceId, flags), signal);
  const keys = authentication?.symmetricKey;
  const key = secondary ? keys?.secondaryKey : keys?.primaryKey;
  const fields = [
    ['HostName', host],
    ['DeviceId', deviceId],
    ['ModuleId', moduleId],
    ['GatewayHostName', gateway],
    ...(authentication?.type === 'sas' ? [['SharedAccessKey', key ?? undefined]] : [['x509', 'true']]),
  ] as const;
  const parts = fields.flatMap(([name, value]) => (value === undefined ? [] : [`${String(name)}=${value}`]));
  const text = parts.join(';');
  // It goes into a file or a pipe as it is, unless JSON was asked for.
  const output = flags.output === 'auto' ? 'text' : flags.output;
  await createPrinter(io, { ...flags, output }).print({
    json: () => JSON.stringify({ connectionString: text }),
    text: () => text,
  });
}

function idOf(deviceId: string, { module: moduleId }: DeviceFlags): DeviceId {
  return { deviceId, ...(moduleId === undefined ? {} : { moduleId }) };
}

function authenticationOf(flags: DeviceChangeFlags): RegisteredDevice['authentication'] {
  const { x509Thumbprint, x509Ca, newKeys } = flags;
  if (x509Ca === true) return { type: 'certificateAuthority' };
  if (newKeys === true) return { type: 'sas', symmetricKey: { primaryKey: null, secondaryKey: null } };
  if (x509Thumbprint === undefined) return undefined;
  const [primaryThumbprint, secondaryThumbprint = null] = x509Thumbprint.map(thumbprint);
  return {
    type: 'selfSigned',
    x509Thumbprint: { primaryThumbprint: primaryThumbprint ?? null, secondaryThumbprint },
  };
}

/** As openssl prints it, or without the colons. */
function thumbprint(text: string): string {
  const hex = text.replaceAll(':', '').toUpperCase();
  if (/^(?:[0-9A-F]{40}|[0-9A-F]{64})$/.test(hex)) return hex;
  throw new AgentError('usage', `${text} is no thumbprint`, {
    hint: 'it has 40 or 64 hexadecimal digits: openssl x509 -fingerprint -sha256 -noout -in cert.pem',
  });
}

async function printDevice(io: Io, device: RegisteredDevice, flags: DeviceShowFlags): Promise<void> {
  const { symmetricKey } = device.authentication ?? {};
  const shown =
    flags.keys === true || symmetricKey === undefined
      ? device
      : { ...device, authentication: { ...device.authentication, symmetricKey: '[secret]' } };
  await printJson(io, flags, JSON.stringify(shown));
}

function twinLine(twin: Record<string, unknown>): Printable {
  const text = (name: string): string => {
    const value = twin[name];
    return typeof value === 'string' || typeof value === 'number' ? visible(String(value)) : '-';
  };
  return {
    json: () => jsonOnOneLine(JSON.stringify(twin)),
    text: (look) =>
      columns(
        [
          text('deviceId'),
          text('status'),
          text('connectionState'),
          text('authenticationType'),
          text('cloudToDeviceMessageCount'),
        ],
        [24, 9, 13, 20],
        look.columns,
      ),
  };
}
