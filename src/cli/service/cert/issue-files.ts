import { X509Certificate, type KeyObject } from 'node:crypto';
import { access } from 'node:fs/promises';
import { join } from 'node:path';

import { issueCertificate, type CertificateUsage } from '../../../certificates/issue.js';
import { keyPem, newKey, type KeyKind } from '../../../certificates/keys.js';
import { readSigningRequest } from '../../../certificates/signing-request.js';
import { AgentError } from '../../../errors.js';
import { visible } from '../../../visible.js';
import type { Io } from '../../io.js';
import { writeNewFiles, type NewFile } from '../../new-files.js';
import { createPrinter, table } from '../../output.js';
import {
  certificatesOf,
  oneLine,
  openPem,
  passphraseOf,
  privateKeyOf,
  thumbprintsOf,
} from '../../pem-files.js';
import type { IssueFlags } from '../cert.js';
import { allowedBelow, type Issuer } from './issuer.js';

const dayMs = 86_400_000;

/** `cert ca` and `cert intermediate`. */
export async function issueAuthority(io: Io, flags: IssueFlags, file: string): Promise<void> {
  const issuer = flags.issuer === undefined ? undefined : await readIssuer(flags.issuer, flags);
  const pathLength = issuer === undefined ? flags.pathLength : allowedBelow(issuer, flags.pathLength);
  const { name: commonName = '', as = file } = flags;
  await issue(io, flags, { commonName, usage: 'authority', pathLength, issuer, file: as });
}

/** `cert device`. */
export async function issueForDevice(io: Io, deviceId: string, flags: IssueFlags): Promise<void> {
  const { module, csr, selfSigned = false } = flags;
  const commonName = module === undefined ? deviceId : `${deviceId}/${module}`;
  const requested = csr === undefined ? undefined : await requestedKey(csr, commonName);
  const issuer = selfSigned ? undefined : await readIssuer(await defaultIssuer(flags), flags);
  const { as = fileName(commonName) } = flags;
  await issue(io, flags, { commonName, usage: 'client', issuer, file: as, requested });
}

/** `cert server`. */
export async function issueForServer(io: Io, host: string, flags: IssueFlags): Promise<void> {
  const issuer = await readIssuer(await defaultIssuer(flags), flags);
  const { san = [], as = fileName(host) } = flags;
  await issue(io, flags, {
    ...{ commonName: host, usage: 'server', issuer, file: as },
    names: [...new Set([host, ...san])],
  });
}

interface Issue {
  commonName: string;
  usage: CertificateUsage;
  /** Undefined: itself. */
  issuer: Issuer | undefined;
  /** Without its ending. */
  file: string;
  pathLength?: number | undefined;
  names?: readonly string[];
  /** The public key of a signing request, instead of a new key. */
  requested?: KeyObject | undefined;
}

/** Makes the key, issues the certificate, writes both, and prints what was made. */
async function issue(io: Io, flags: IssueFlags, wanted: Issue): Promise<void> {
  const { dir, days, force } = flags;
  const { commonName, usage, issuer, file, requested } = wanted;
  const passphrase = await passphraseOf(flags.passphraseFile);
  const key = requested ?? (await newKey(keyKind(flags.rsa)));
  const now = Date.now();
  const ending = now + days * dayMs;
  // Nothing outlives what it stands on.
  const validUntil = Math.min(
    ending,
    issuer === undefined ? Infinity : Date.parse(issuer.certificate.validTo),
  );
  const pem = await issueCertificate({
    ...{ commonName, usage, key, validUntil, pathLength: wanted.pathLength, names: wanted.names },
    // The clock of a device may be behind.
    validFrom: now - dayMs,
    issuer: issuer && { certificate: issuer.certificate.toString(), key: issuer.key },
  });
  const certificatePath = join(dir, `${file}.pem`);
  const keyPath = requested === undefined ? join(dir, `${file}.key`) : undefined;
  const chain = issuer?.chain.map(String).join('') ?? '';
  const files: NewFile[] = [{ path: certificatePath, content: pem + chain, isSecret: false }];
  if (keyPath !== undefined)
    files.unshift({ path: keyPath, content: keyPem(key, passphrase), isSecret: true });
  await writeNewFiles(files, { force });
  if (validUntil < ending) await io.stderr.write(`it ends with ${issuer?.file ?? ''}, which signed it\n`);
  await printIssued(io, flags, { certificatePath, keyPath, certificate: new X509Certificate(pem) });
}

async function printIssued(
  io: Io,
  flags: IssueFlags,
  {
    certificatePath,
    keyPath,
    certificate,
  }: { certificatePath: string; keyPath: string | undefined; certificate: X509Certificate },
): Promise<void> {
  const { sha1, sha256 } = thumbprintsOf(certificate);
  const facts = {
    certificate: certificatePath,
    key: keyPath,
    subject: oneLine(certificate.subject),
    issuer: oneLine(certificate.issuer),
    expires: new Date(certificate.validTo).toISOString(),
    sha1,
    sha256,
  };
  await createPrinter(io, flags).print({
    json: () => JSON.stringify(facts),
    text: () =>
      table(
        Object.entries({ ...facts, expires: facts.expires.slice(0, 10) }).flatMap(([name, value]) =>
          value === undefined ? [] : [[name, visible(value)] as const],
        ),
      ),
  });
}

async function defaultIssuer({ issuer, dir }: IssueFlags): Promise<string> {
  if (issuer !== undefined) return issuer;
  const hasIntermediate = await access(join(dir, 'intermediate.pem')).then(
    () => true,
    () => false,
  );
  return hasIntermediate ? 'intermediate' : 'ca';
}

/** The authority of this name. Errors: `no-input`, `config`, and `data` when it is none. */
async function readIssuer(name: string, { dir, issuerPassphraseFile }: IssueFlags): Promise<Issuer> {
  const file = join(dir, `${name}.pem`);
  const all = await certificatesOf(file).catch((error: unknown) => {
    if (!(error instanceof AgentError) || error.code !== 'no-input') throw error;
    throw new AgentError('no-input', `there is no authority to sign it: ${error.message}`, {
      hint: 'make one with iothub-service cert ca --name NAME, or name one with --issuer',
    });
  });
  const [certificate] = all;
  if (certificate?.ca !== true) throw new AgentError('data', `${file} is no authority: it may not sign`);
  if (Date.parse(certificate.validTo) < Date.now()) throw new AgentError('data', `${file} has expired`);
  const keyFile = join(dir, `${name}.key`);
  const key = await privateKeyOf(keyFile, issuerPassphraseFile);
  if (!certificate.checkPrivateKey(key)) throw new AgentError('data', `${keyFile} is not the key of ${file}`);
  // The root is what the other side has already.
  return { file, certificate, key, chain: all.filter(({ subject, issuer }) => subject !== issuer) };
}

async function requestedKey(file: string, commonName: string): Promise<KeyObject> {
  const { blocks } = await openPem(file, 'the signing request');
  const block = blocks.find(({ label }) => label.endsWith('CERTIFICATE REQUEST'));
  if (block === undefined) throw new AgentError('data', `there is no signing request in ${file}`);
  const request = await readSigningRequest(block.der);
  if (request.commonName === commonName) return request.key;
  throw new AgentError('data', `${file} is for "${request.commonName}", not for "${commonName}"`, {
    hint: 'the hub wants the id of the device as the common name',
  });
}

function keyKind(rsa: IssueFlags['rsa']): KeyKind {
  if (rsa === undefined) return 'ec-p256';
  return rsa === true ? 'rsa-2048' : `rsa-${rsa}`;
}

/** Ids have characters that no file name should have. */
function fileName(name: string): string {
  return name.replace(/[^\w.+=@,-]/g, '_').replace(/^\.+/, '_');
}
