/** The same certificates in the hands of Microsoft's device SDK and in ours: the hub sees the same, and so do they. */
import { createHash, X509Certificate } from 'node:crypto';

import { describe, expect, test } from 'vitest';

import { openHubSession } from '../../src/amqp/session.js';
import type { Endpoint } from '../../src/amqp/socket.js';
import { makeCertificate, type CertificateAndKey } from '../../src/emulator/certificates.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { AgentError } from '../../src/errors.js';
import { readClientCertificate } from '../../src/identity/certificate.js';
import { parseDeviceConnectionString } from '../../src/identity/connection-string.js';
import { silentLog } from '../../src/log.js';
import { encodeFor } from '../../src/amqp/session.js';
import { Sdk, mayUse443, startHub } from './sdk.js';

const now = Date.now();

type Transport = 'amqp' | 'ws';

/** What a client that logs in with this, sends a message and leaves comes to. */
interface Tried {
  result: 'accepted' | 'refused';
  /** What the hub saw, in order; names of links and numbers are the clients' own. */
  seen: string[];
}

async function bySdk(
  sdk: Sdk,
  ...[hub, deviceId, shown, transport]: [Emulator, string, CertificateAndKey, Transport]
) {
  const certificate = { cert: shown.certificate, key: shown.key };
  return tried(hub, async () => {
    await sdk.call('open', hub.deviceConnectionString(deviceId), { transport, certificate });
    await sdk.call('send', { body: 'x', messageId: 'm1' });
    await sdk.call('close');
  });
}

async function byUs(hub: Emulator, deviceId: string, shown: CertificateAndKey, transport: Transport) {
  const identity = parseDeviceConnectionString(hub.deviceConnectionString(deviceId));
  const certificate = readClientCertificate({ certificates: shown.certificate, key: shown.key });
  const endpoint: Endpoint = {
    ...{ host: identity.host, port: 5671, trust: { extraCa: hub.ca }, certificate },
    webSocket: transport === 'ws' ? { port: 443 } : undefined,
  };
  return tried(hub, async () => {
    await using session = await openHubSession(
      { endpoint, identity, links: ['telemetry'], log: silentLog },
      AbortSignal.timeout(10_000),
    );
    const message = { messageId: 'm1', properties: {}, body: Buffer.from('x') };
    await session.telemetry.send(encodeFor(identity)(message));
  });
}

async function tried(hub: Emulator, act: () => Promise<void>): Promise<Tried> {
  const before = hub.record.entries.length;
  const result = await act().then(
    () => 'accepted' as const,
    (error: unknown) => {
      // Theirs is an UnauthorizedError.
      if (error instanceof AgentError) expect(error.code).toBe('refused');
      else expect((error as Error).name).toBe('UnauthorizedError');
      return 'refused' as const;
    },
  );
  await hub.waitFor(() => hub.connections.length === 0);
  const seen = hub.record.entries.slice(before).flatMap((entry) => {
    switch (entry.event) {
      case 'connected':
        return [`connected by ${entry.transport}`];
      case 'attached':
        return [`attached ${entry.link} on session ${String(entry.session)}`];
      case 'refused':
        return [`refused ${entry.link}: ${entry.condition}`];
      case 'token':
        return ['token'];
      case 'telemetry':
        return [`telemetry ${entry.messageId ?? ''}`];
      default:
        return [];
    }
  });
  return { result, seen };
}

describe.skipIf(!mayUse443)('azure-iot-device and this one', () => {
  test.for(['amqp', 'ws'] as const)(
    'log in with the same certificates in the same way, over %s',
    { timeout: 60_000 },
    async (transport) => {
      const root = await makeCertificate({ commonName: 'Root', usage: 'authority', now });
      const plant = await makeCertificate({ commonName: 'Plant', usage: 'authority', issuer: root, now });
      const client = (commonName: string, issuer?: CertificateAndKey) =>
        makeCertificate({ commonName, usage: 'client', now, ...(issuer && { issuer }) });
      const own = await client('whatever');
      const [chained, other] = [await client('by-ca', plant), await client('someone-else', plant)];
      const withChain = (leaf: CertificateAndKey): CertificateAndKey => ({
        certificate: leaf.certificate + plant.certificate,
        key: leaf.key,
      });

      await using hub = await startHub({ deviceAuthorities: [root.certificate] });
      await using sdk = await Sdk.start('device', hub);
      hub.addDevice('by-ca', { type: 'certificateAuthority' });
      for (const [deviceId, algorithm] of [
        ['by-sha1', 'sha1'],
        ['by-sha256', 'sha256'],
      ] as const) {
        const thumbprint = createHash(algorithm)
          .update(new X509Certificate(own.certificate).raw)
          .digest('hex');
        hub.addDevice(deviceId, {
          type: 'selfSigned',
          primaryThumbprint: '0'.repeat(thumbprint.length),
          secondaryThumbprint: thumbprint,
        });
      }

      const wire = transport === 'ws' ? 'websocket' : 'tls';
      const accepted = {
        result: 'accepted',
        seen: [`connected by ${wire}`, 'attached telemetry on session 1', 'telemetry m1'],
      };
      const refused = {
        result: 'refused',
        seen: [`connected by ${wire}`, 'refused telemetry: amqp:unauthorized-access'],
      };
      for (const [deviceId, certificate, expected] of [
        ['by-sha1', own, accepted],
        ['by-sha256', own, accepted],
        ['by-ca', withChain(chained), accepted],
        // Without its intermediate, for another device, for another thumbprint, and with an intermediate in its place.
        ['by-ca', chained, refused],
        ['by-ca', withChain(other), refused],
        ['by-sha1', withChain(chained), refused],
        ['by-ca', plant, refused],
      ] as const) {
        expect(await bySdk(sdk, hub, deviceId, certificate, transport), deviceId).toEqual(expected);
        expect(await byUs(hub, deviceId, certificate, transport), deviceId).toEqual(expected);
      }
    },
  );
});
