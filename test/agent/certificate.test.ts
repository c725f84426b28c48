import { expect, test } from 'vitest';

import { DeviceCertificate, untilCertificateRenewed } from '../../src/agent/certificate.js';
import { makeCertificate, type CertificateAndKey } from '../../src/emulator/certificates.js';
import { AgentError } from '../../src/errors.js';
import { readClientCertificate } from '../../src/identity/certificate.js';
import { silentLog, type Log, type LogFields } from '../../src/log.js';
import { endpointOf, openSession, reasonOf, startHub } from '../amqp/hub.js';
import { fastClock } from './clock.js';

const day = 86_400_000;

/** A log whose warnings and errors are kept. */
function keptLog(): { log: Log; said: [string, LogFields | undefined][] } {
  const said: [string, LogFields | undefined][] = [];
  const keep = (message: string, fields?: LogFields) => void said.push([message, fields]);
  return { log: { ...silentLog, info: keep, warn: keep, error: keep }, said };
}

/** A certificate file that can be replaced, and how it is read. */
function disk(first: CertificateAndKey) {
  let now: CertificateAndKey | AgentError = first;
  return {
    put: (next: CertificateAndKey | AgentError) => {
      now = next;
    },
    read: () =>
      now instanceof AgentError
        ? Promise.reject(now)
        : Promise.resolve(readClientCertificate({ certificates: now.certificate, key: now.key })),
  };
}

const make = (days: number, now = Date.now()) =>
  makeCertificate({ commonName: 'dev1', usage: 'client', now, days });

test('every connection gets the certificate that is on disk; one that cannot be read changes nothing', async () => {
  const [old, renewed] = [await make(100), await make(200)];
  const files = disk(old);
  const { log, said } = keptLog();
  const certificate = new DeviceCertificate({ ...files, warnBeforeMs: day, clock: fastClock(1), log });
  const first = await certificate.forConnection();

  files.put(new AgentError('config', 'the key is not that of the certificate'));
  expect(await certificate.forConnection()).toBe(first);
  expect(await certificate.forConnection()).toBe(first);
  expect(said.map(([message]) => message)).toEqual([
    'the certificate on disk cannot be used; the one before still is',
  ]);

  files.put(renewed);
  const second = await certificate.forConnection();
  expect(second.thumbprints).not.toEqual(first.thumbprints);
  expect(certificate.current).toBe(second);
  expect(said.at(-1)).toMatchObject(['there is a new certificate', { subject: 'CN=dev1' }]);
});

test('one that cannot be read at the start is an error', async () => {
  const files = disk(await make(100));
  files.put(new AgentError('no-input', 'there is no such file'));
  const certificate = new DeviceCertificate({
    ...files,
    warnBeforeMs: day,
    clock: fastClock(1),
    log: silentLog,
  });
  await expect(certificate.forConnection()).rejects.toMatchObject({ code: 'no-input' });
});

test('its end is told ahead, once a day; so is a clock that is before its beginning', async () => {
  const { log, said } = keptLog();
  let now = Date.now();
  let elapsed = 0;
  const clock = { ...fastClock(1), now: () => now, monotonic: () => elapsed };
  const certificate = new DeviceCertificate({ ...disk(await make(100)), warnBeforeMs: 30 * day, clock, log });
  const at = async (days: number): Promise<void> => {
    elapsed += days * day - (now - start);
    now = start + days * day;
    await certificate.forConnection();
  };
  const start = now;
  await at(60);
  expect(said).toEqual([]);
  await at(71);
  await at(71.5);
  await at(72.1);
  await at(101);
  elapsed += 2 * day;
  now = 5_000;
  await certificate.forConnection();
  expect(said.map(([message]) => message)).toEqual([
    'the certificate expires soon; renew it',
    'the certificate expires soon; renew it',
    'the certificate has expired; renew it',
    'the certificate is not valid yet, or the clock is wrong',
  ]);
  expect(said.at(-1)![1]).toMatchObject({ clockSays: '1970-01-01T00:00:05.000Z' });
});

test('before it ends the session is left for the new one, when what was begun is finished', async () => {
  const [old, renewed] = [await make(1), await make(300)];
  await using hub = await startHub();
  const thumbprints = [old, renewed].map(
    ({ certificate, key }) => readClientCertificate({ certificates: certificate, key }).thumbprints.sha256,
  );
  const [primaryThumbprint = '', secondaryThumbprint = ''] = thumbprints;
  hub.addDevice('dev1', { type: 'selfSigned', primaryThumbprint, secondaryThumbprint });

  const files = disk(old);
  // Two days of life, one of them over: at 4.8 h before the end it is time.
  const clock = fastClock(100_000);
  const certificate = new DeviceCertificate({ ...files, warnBeforeMs: 0, clock, log: silentLog });
  const connectionString = hub.deviceConnectionString('dev1');
  const open = async () =>
    openSession(hub, {
      connectionString,
      endpoint: { ...endpointOf(hub), certificate: await certificate.forConnection() },
      token: undefined,
    });
  await using session = await open();
  const [view] = hub.connections;
  expect(view).toMatchObject({
    tokens: 0,
    sessions: [{ links: [{ link: 'telemetry' }, { link: 'commands' }] }],
  });

  files.put(renewed);
  const events: string[] = [];
  const never = new AbortController().signal;
  const work = untilCertificateRenewed(session, certificate, never, async (stopping) => {
    await new Promise((resolve) => {
      stopping.addEventListener('abort', resolve);
    });
    events.push(session.over.aborted ? 'too late' : 'finished');
  });
  await expect(work).rejects.toMatchObject({
    retry: 'soon',
    message: 'connecting anew, with the renewed certificate',
  });
  expect(events).toEqual(['finished']);
  expect(await reasonOf(session.over)).toMatchObject({ retry: 'soon' });

  await using next = await open();
  expect(next.over.aborted).toBe(false);
  expect(certificate.current!.thumbprints.sha256).toBe(secondaryThumbprint);
});
