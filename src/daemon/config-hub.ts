import { resolve } from 'node:path';
import * as v from 'valibot';

import type { Problem } from './config-positions.js';
import { secret, secretFile, secretFileSource, secretSource, type SecretSource } from './config-secret.js';
import { count, duration } from './config-values.js';

/** `[hub]`: the hub, the way to it, and who we are there. */

export interface HubConfig {
  connectionString: SecretSource | undefined;
  /** The same without a connection string, for a device with a certificate. */
  host: string | undefined;
  deviceId: string | undefined;
  moduleId: string | undefined;
  certificate: CertificateConfig | undefined;
  gatewayHost: string | undefined;
  transport: Transport;
  /** URL of an HTTP proxy. */
  proxy: SecretSource | undefined;
  httpsPort: number | undefined;
  attach: Attach;
  /** Path of a PEM file. */
  ca: string | undefined;
  tokenTtlMs: number;
  idleTimeoutMs: number;
}

/** `amqp`: on a port of its own. `amqp-ws`: inside of a WebSocket. `auto`: what gets through. */
export type Transport = 'amqp' | 'amqp-ws' | 'auto';

/** When links are attached: when the hub has taken the token, or together with it. */
export type Attach = 'after-token' | 'with-token';

export interface CertificateConfig {
  /** Path of a PEM file. */
  file: string;
  /** Undefined: in the same file. */
  key: SecretSource | undefined;
  passphrase: SecretSource | undefined;
  warnBeforeMs: number;
}

const x509 = v.strictObject({
  cert: v.pipe(v.string(), v.description('PEM file of the certificate, with its intermediates')),
  key: v.optional(v.pipe(secretFile, v.description('Its key. Absent: in the same file'))),
  passphrase: v.optional(v.pipe(secret, v.description('Of an encrypted key'))),
  warn_before: v.optional(
    duration('How long before it expires the log warns, once a day', '0s', '365d'),
    '30d',
  ),
});

const name = (description: string) => v.optional(v.pipe(v.string(), v.description(description)));

export const hubSchema = v.strictObject({
  connection_string: v.optional(
    v.pipe(secret, v.description('Who the device is. Absent: as for every command, from the environment')),
  ),
  host: name('Name of the hub, for a device that has a certificate and no connection string'),
  device_id: name('Who the device is there'),
  module_id: name('Which module of the device'),
  x509: v.optional(v.pipe(x509, v.description('Certificate of the device'))),
  gateway_host: name('IoT Edge gateway to connect to instead of the hub'),
  transport: v.optional(
    v.pipe(
      v.picklist(['auto', 'amqp', 'amqp-ws'], 'write "auto", "amqp" or "amqp-ws"'),
      v.description('AMQP on its own port, inside of a WebSocket on port 443, or what gets through'),
    ),
    'auto',
  ),
  proxy: v.optional(v.pipe(secret, v.description('URL of an HTTP proxy, for WebSocket'))),
  https_port: v.optional(count('Port for WebSocket, where it is not 443', 1, 65_535)),
  attach: v.optional(
    v.pipe(
      v.picklist(['after-token', 'with-token'], 'write "after-token" or "with-token"'),
      v.description('Links when the hub has taken the token, or together with it: a round trip less'),
    ),
    'after-token',
  ),
  ca: v.optional(v.pipe(v.string(), v.description('PEM file of further authorities to trust'))),
  token_ttl: v.optional(duration('Life of a token; it is renewed before', '1m', '365d'), '1h'),
  idle_timeout: v.optional(duration('Silence after which a connection counts as dead', '1s', '4m'), '10s'),
});

type HubFile = v.InferOutput<typeof hubSchema>;

/** `folder` is where paths of a key are relative to. */
export function hubConfig(hub: HubFile, folder: (key: keyof HubFile) => string): HubConfig {
  return {
    connectionString:
      hub.connection_string === undefined
        ? undefined
        : secretSource(hub.connection_string, folder('connection_string')),
    host: hub.host,
    deviceId: hub.device_id,
    moduleId: hub.module_id,
    certificate: hub.x509 && certificateConfig(hub.x509, folder('x509')),
    gatewayHost: hub.gateway_host,
    transport: hub.transport,
    proxy: hub.proxy === undefined ? undefined : secretSource(hub.proxy, folder('proxy')),
    httpsPort: hub.https_port,
    attach: hub.attach,
    ca: hub.ca === undefined ? undefined : resolve(folder('ca'), hub.ca),
    tokenTtlMs: hub.token_ttl,
    idleTimeoutMs: hub.idle_timeout,
  };
}

function certificateConfig(
  { cert, key, passphrase, warn_before }: NonNullable<HubFile['x509']>,
  folder: string,
): CertificateConfig {
  return {
    file: resolve(folder, cert),
    key: key === undefined ? undefined : secretFileSource(key, folder),
    passphrase: passphrase === undefined ? undefined : secretSource(passphrase, folder),
    warnBeforeMs: warn_before,
  };
}

/** What the schema cannot say: keys that need each other, or exclude each other. */
export function hubProblems({ hub }: { hub: HubFile }): Problem[] {
  const problems: Problem[] = [];
  const problem = (key: keyof HubFile, what: string) => problems.push({ path: ['hub', key], what });
  if (hub.proxy !== undefined && hub.transport === 'amqp')
    problem('proxy', 'it is for WebSocket, and transport is "amqp"; write "amqp-ws" or "auto"');
  if (hub.connection_string !== undefined) {
    for (const key of ['host', 'device_id', 'module_id'] as const)
      if (hub[key] !== undefined) problem(key, 'the connection string says it');
    return problems;
  }
  if (hub.host !== undefined && hub.device_id === undefined) problem('host', 'it needs device_id');
  if (hub.host !== undefined && hub.x509 === undefined)
    problem('host', 'it needs x509; a key is in a connection string');
  if (hub.device_id !== undefined && hub.host === undefined) problem('device_id', 'it needs host');
  if (hub.module_id !== undefined && hub.device_id === undefined) problem('module_id', 'it needs device_id');
  return problems;
}
