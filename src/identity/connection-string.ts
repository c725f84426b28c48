import { AgentError } from '../errors.js';
import { Secret } from '../secret.js';

/**
 * Connection strings of Azure IoT Hub and Event Hubs: `Key=Value` pairs joined by `;`, where a value may hold `=`.
 * Source: "Control access to IoT Hub with shared access signatures" and the parsers of the Node and C# SDKs.
 */

export type DeviceCredential =
  | { kind: 'key'; key: Secret; policyName?: string | undefined }
  | { kind: 'signature'; signature: Secret }
  | { kind: 'x509' };

export interface DeviceConnectionString {
  /** The hub's name as tokens carry it, with a port when the string has one (`localhost:5671`). */
  host: string;
  deviceId: string;
  moduleId?: string | undefined;
  /** IoT Edge gateway to connect to instead of the hub. */
  gatewayHost?: string | undefined;
  credential: DeviceCredential;
}

export interface ServiceConnectionString {
  host: string;
  credential: { kind: 'key'; key: Secret; policyName: string } | { kind: 'signature'; signature: Secret };
}

export interface EventHubConnectionString {
  /** `ns.servicebus.windows.net`, with a port when the endpoint has one. */
  host: string;
  /** Name of the event hub; absent when only the namespace is given. */
  entityPath?: string | undefined;
  /** `UseDevelopmentEmulator=true`: plain TCP. */
  developmentEmulator: boolean;
  credential:
    | { kind: 'key'; key: Secret; policyName: string }
    | { kind: 'signature'; signature: Secret }
    | { kind: 'none' };
}

const deviceFields = [
  'HostName',
  'DeviceId',
  'ModuleId',
  'GatewayHostName',
  'SharedAccessKeyName',
  'SharedAccessKey',
  'SharedAccessSignature',
  'x509',
  'X509Cert',
];
const serviceFields = [
  'HostName',
  'SharedAccessKeyName',
  'SharedAccessKey',
  'SharedAccessSignature',
  'DeviceId',
];
const eventHubFields = [
  'Endpoint',
  'EntityPath',
  'SharedAccessKeyName',
  'SharedAccessKey',
  'SharedAccessSignature',
  'UseDevelopmentEmulator',
  'TransportType',
];

/** Reads a device's or module's connection string; throws a `config` error that names the part that is wrong. */
export function parseDeviceConnectionString(text: string): DeviceConnectionString {
  const fields = split(text, 'device', deviceFields);
  const host = hostField(fields, 'HostName');
  const deviceId = required(fields, 'DeviceId', 'device');
  checkId('DeviceId', deviceId);
  const moduleId = fields.get('ModuleId');
  if (moduleId !== undefined) checkId('ModuleId', moduleId);
  const gatewayHost = fields.has('GatewayHostName') ? hostField(fields, 'GatewayHostName') : undefined;
  return { host, deviceId, moduleId, gatewayHost, credential: deviceCredential(fields) };
}

/** Reads a hub policy's connection string, as `iothub-service` uses it. */
export function parseServiceConnectionString(text: string): ServiceConnectionString {
  const fields = split(text, 'service', serviceFields);
  if (fields.has('DeviceId')) {
    throw broken('it is a device connection string (it has DeviceId)', {
      hint: 'iothub-service wants the connection string of a hub policy such as iothubowner or service',
    });
  }
  const host = hostField(fields, 'HostName');
  const credential = keyOrSignature(fields, 'service');
  if (credential.kind === 'signature') return { host, credential };
  decodedKey(credential.key);
  return {
    host,
    credential: { ...credential, policyName: required(fields, 'SharedAccessKeyName', 'service') },
  };
}

/** Reads an Event Hubs connection string: the hub's built-in endpoint, or one that it routes to. */
export function parseEventHubConnectionString(text: string): EventHubConnectionString {
  const fields = split(text, 'Event Hubs', eventHubFields);
  const endpoint = required(fields, 'Endpoint', 'Event Hubs');
  let host: string;
  try {
    const url = new URL(endpoint);
    if (url.protocol !== 'sb:' || url.host === '') throw new TypeError('not sb://');
    host = url.host;
  } catch (cause) {
    throw broken(`Endpoint is not of the form sb://HOST/: "${endpoint}"`, { cause });
  }
  const developmentEmulator = fields.get('UseDevelopmentEmulator')?.toLowerCase() === 'true';
  const entityPath = fields.get('EntityPath');
  if (!fields.has('SharedAccessKey') && !fields.has('SharedAccessSignature') && developmentEmulator) {
    return { host, entityPath, developmentEmulator, credential: { kind: 'none' } };
  }
  const credential = keyOrSignature(fields, 'Event Hubs');
  if (credential.kind === 'signature') return { host, entityPath, developmentEmulator, credential };
  const policyName = required(fields, 'SharedAccessKeyName', 'Event Hubs');
  return { host, entityPath, developmentEmulator, credential: { ...credential, policyName } };
}

/** A device that proves itself with a certificate, so that its names are all that there is to know. */
export function deviceWithCertificate(names: {
  host: string;
  deviceId: string;
  moduleId?: string | undefined;
}): DeviceConnectionString {
  const { host, deviceId, moduleId } = names;
  checkHost('the host', host);
  checkId('the device id', deviceId);
  if (moduleId !== undefined) checkId('the module id', moduleId);
  return { host, deviceId, moduleId, credential: { kind: 'x509' } };
}

/** Host name without its port, as TLS and the AMQP `open` carry it. */
export function hostName(host: string): string {
  return splitPort(host).name;
}

/** Port of a host, or `fallback` when it names none. */
export function hostPort(host: string, fallback: number): number {
  return splitPort(host).port ?? fallback;
}

/** The bytes of a base64 key; a `config` error when it is not base64. */
export function decodedKey(key: Secret): Buffer {
  const text = key.reveal();
  // Buffer.from skips what is not base64, so a damaged key would quietly become another key.
  const wellFormed = /^[A-Za-z0-9+/]+={0,2}$/.test(text) && text.length % 4 === 0;
  if (!wellFormed) {
    throw broken('SharedAccessKey is not base64', {
      hint: 'copy the key again; it usually ends with "=" and no character may be missing',
    });
  }
  return Buffer.from(text, 'base64');
}

function split(text: string, what: string, known: readonly string[]): Map<string, string> {
  const trimmed = text.trim();
  if (trimmed === '') throw broken('it is empty');
  const fields = new Map<string, string>();
  for (const part of trimmed.split(';')) {
    if (part.trim() === '') continue;
    const equals = part.indexOf('=');
    // The part itself may be a secret that lost its name, so it is counted, not shown.
    if (equals < 1) throw broken(`part ${String(fields.size + 1)} is not of the form Key=Value`);
    const key = part.slice(0, equals).trim();
    const name = known.find((candidate) => candidate.toLowerCase() === key.toLowerCase());
    if (name === undefined) {
      // A key that lost its name ends with "=" and would be shown here as one.
      const shown = /^\w{1,24}$/.test(key) ? `"${key}"` : `part ${String(fields.size + 1)}`;
      throw broken(`${shown} does not belong in a ${what} connection string`, {
        hint: `it may have: ${known.join(', ')}`,
      });
    }
    if (fields.has(name)) throw broken(`${name} is there twice`);
    const value = part.slice(equals + 1).trim();
    if (value === '') throw broken(`${name} is empty`);
    fields.set(name, value);
  }
  return fields;
}

function required(fields: Map<string, string>, name: string, what: string): string {
  const value = fields.get(name);
  if (value === undefined) {
    throw broken(`${name} is missing`, { hint: `a ${what} connection string needs ${name}=…` });
  }
  return value;
}

function hostField(fields: Map<string, string>, name: string): string {
  const host = required(fields, name, name === 'HostName' ? 'device or service' : 'device');
  checkHost(name, host);
  return host;
}

/** Errors: `config` when it is not the name of a host, with a port or without; `name` says what it is. */
export function checkHost(name: string, host: string): void {
  const { name: bare, port } = splitPort(host);
  if (!/^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$|^\[[0-9A-Fa-f:.]+\]$/.test(bare)) {
    throw broken(`${name} is not a host name: "${host}"`, {
      hint: 'write the bare name, as in myhub.azure-devices.net, without a scheme or a path',
    });
  }
  if (port !== undefined && !(port >= 1 && port <= 65_535))
    throw broken(`${name} has an impossible port: "${host}"`);
}

function splitPort(host: string): { name: string; port?: number } {
  const match = /^(.*):(\d+)$/.exec(host);
  if (match?.[1] === undefined || match[2] === undefined) return { name: host };
  return { name: match[1], port: Number(match[2]) };
}

/** The characters that IoT Hub allows in device and module ids, at most 128 of them. */
const idPattern = /^[A-Za-z0-9\-:.+%_#*?!(),=@$']{1,128}$/;

function checkId(name: string, id: string): void {
  if (idPattern.test(id)) return;
  throw broken(`${name} has a character that IoT Hub does not allow, or is over 128 long: "${id}"`);
}

function deviceCredential(fields: Map<string, string>): DeviceCredential {
  const x509 = (fields.get('x509') ?? fields.get('X509Cert'))?.toLowerCase() === 'true';
  const given = ['SharedAccessKey', 'SharedAccessSignature'].filter((name) => fields.has(name));
  if (x509) given.push('x509');
  const [first, second] = given;
  if (first === undefined) {
    throw broken('it has no credential', {
      hint: 'it needs one of SharedAccessKey=…, SharedAccessSignature=… or x509=true',
    });
  }
  if (second !== undefined) throw broken(`it has two credentials, ${first} and ${second}`);
  if (x509) return { kind: 'x509' };
  const credential = keyOrSignature(fields, 'device');
  if (credential.kind === 'signature') return credential;
  decodedKey(credential.key);
  return { ...credential, policyName: fields.get('SharedAccessKeyName') };
}

function keyOrSignature(
  fields: Map<string, string>,
  what: string,
): { kind: 'key'; key: Secret } | { kind: 'signature'; signature: Secret } {
  const key = fields.get('SharedAccessKey');
  const signature = fields.get('SharedAccessSignature');
  if (key !== undefined && signature !== undefined) {
    throw broken('it has two credentials, SharedAccessKey and SharedAccessSignature');
  }
  if (key !== undefined) return { kind: 'key', key: new Secret(key) };
  if (signature !== undefined) return { kind: 'signature', signature: new Secret(signature) };
  throw broken('SharedAccessKey is missing', {
    hint: `a ${what} connection string needs SharedAccessKey=… or SharedAccessSignature=…`,
  });
}

function broken(why: string, options: { hint?: string; cause?: unknown } = {}): AgentError {
  return new AgentError('config', `the connection string cannot be used: ${why}`, options);
}
