import { Option } from 'commander';

import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addOutputOptions, type OutputFlags } from '../output.js';
import { collect, count, duration, time } from '../values.js';

/** What each command that issues a certificate has. */
export interface IssueFlags extends OutputFlags {
  dir: string;
  days: number;
  as?: string;
  issuer?: string;
  issuerPassphraseFile?: string;
  rsa?: true | '2048' | '3072' | '4096';
  passphraseFile?: string;
  force?: boolean;
  // Of some of them only:
  name?: string;
  pathLength?: number;
  csr?: string;
  selfSigned?: boolean;
  module?: string;
  san?: string[];
}

export interface BundleFlags extends OutputFlags {
  dir: string;
  format: 'pem' | 'pfx' | 'der';
  as?: string;
  passphraseFile?: string;
  keyPassphraseFile?: string;
  force?: boolean;
}

export interface VerifyFlags extends OutputFlags {
  ca?: string[];
  key?: string;
  keyPassphraseFile?: string;
  for?: 'device' | 'server' | 'ca';
  device?: string;
  host?: string;
  at?: number;
  /** Milliseconds. */
  warn: number;
}

export interface ThumbprintFlags extends OutputFlags {
  sha1?: boolean;
  sha256?: boolean;
}

/** `iothub-service cert`: an authority of one's own, and what it signs. */
export function certCommand(io: Io): Subcommand {
  const cert = new Subcommand('cert')
    .description(
      'Certificates for devices and servers: make an authority, let it sign, put them into the form that is needed, and ' +
        'find out what is wrong with one.',
    )
    .examples(
      'iothub-service cert ca --name "Acme Root"                 # ca.pem, and ca.key to keep safe',
      'iothub-service cert intermediate --name "Acme Line 1"     # what signs from now on; ca.key can go',
      'iothub-service cert device dev1                           # dev1.pem with its chain, dev1.key',
      'iothub-service cert device dev1 --csr dev1.csr            # the key never leaves the device',
      'iothub-service cert server hub.local --san 127.0.0.1',
      'iothub-service cert bundle dev1 --format pfx --passphrase-file phrase.txt',
      'iothub-service cert verify dev1.pem --ca ca.pem --key dev1.key --device dev1',
      'iothub-service cert thumbprint dev1.pem --sha256',
    )
    .exits('ok', ['data', 'something is wrong with the certificate'], 'no-input', [
      'cannot-create',
      'a file is there already, or cannot be made',
    ]);
  addAuthority(io, cert);
  addIntermediate(io, cert);
  addDevice(io, cert);
  addServer(io, cert);
  addBundle(io, cert);
  addVerify(io, cert);
  addThumbprint(io, cert);
  return cert;
}

function addAuthority(io: Io, cert: Subcommand): void {
  const command = cert
    .verb('ca', 'Make a root authority: ca.pem for the hub to know, ca.key to sign with.')
    .requiredOption('--name <name>', 'its common name')
    .option('--path-length <n>', 'so many authorities may stand below it at most', count(0));
  addIssueOptions(command, { days: 3650, hasIssuer: false }).action(async (flags: IssueFlags) => {
    const { issueAuthority } = await import('./cert/issue-files.js');
    await issueAuthority(io, flags, 'ca');
  });
}

function addIntermediate(io: Io, cert: Subcommand): void {
  const command = cert
    .verb(
      'intermediate',
      'Make an authority that another one has signed: intermediate.pem and intermediate.key.',
    )
    .requiredOption('--name <name>', 'its common name')
    .addOption(
      new Option('--path-length <n>', 'so many authorities may stand below it at most')
        .argParser(count(0))
        .default(0),
    );
  addIssueOptions(command, { days: 1825, hasIssuer: true }).action(async (flags: IssueFlags) => {
    const { issueAuthority } = await import('./cert/issue-files.js');
    await issueAuthority(io, { issuer: 'ca', ...flags }, 'intermediate');
  });
}

function addDevice(io: Io, cert: Subcommand): void {
  const command = cert
    .verb(
      'device',
      'Issue a certificate for a device, with its id as the common name: ID.pem with all that leads to the root, and ' +
        'ID.key.',
    )
    .argument('<device>', 'device id')
    .option('--module <id>', 'for this module of the device')
    .addOption(
      new Option('--csr <file>', 'for this signing request: the device has made its key itself').conflicts([
        'rsa',
        'passphraseFile',
        'selfSigned',
      ]),
    )
    .addOption(
      new Option('--self-signed', 'by itself; the hub then knows it by its thumbprint').conflicts('issuer'),
    );
  addIssueOptions(command, { days: 365, hasIssuer: true }).action(
    async (deviceId: string, flags: IssueFlags) => {
      const { issueForDevice } = await import('./cert/issue-files.js');
      await issueForDevice(io, deviceId, flags);
    },
  );
}

function addServer(io: Io, cert: Subcommand): void {
  const command = cert
    .verb(
      'server',
      'Issue a certificate for a server, such as a gateway or a broker: HOST.pem with all that leads to the root, and HOST.key.',
    )
    .argument('<host>', 'its name, which is its first subject alternative name too')
    .option(
      '--san <names>',
      'more names and addresses, as in hub.local,127.0.0.1 (DNS: and IP: may stand before)',
      list,
    );
  addIssueOptions(command, { days: 365, hasIssuer: true }).action(async (host: string, flags: IssueFlags) => {
    const { issueForServer } = await import('./cert/issue-files.js');
    await issueForServer(io, host, flags);
  });
}

function addIssueOptions(
  command: Subcommand,
  { days, hasIssuer }: { days: number; hasIssuer: boolean },
): Subcommand {
  const key = (option: Option): Option => option.helpGroup('Key:');
  const files = (option: Option): Option => option.helpGroup('Files:');
  if (hasIssuer) {
    command
      .option(
        '--issuer <name>',
        'what signs: NAME.pem and NAME.key (default intermediate if it is there, else ca)',
      )
      .option('--issuer-passphrase-file <file>', 'file with the passphrase of its key');
  }
  command
    .option('--days <n>', 'how long it is valid', count(1, 36_500), days)
    .addOption(
      key(
        new Option('--rsa [bits]', 'an RSA key instead of EC P-256 (2048)').choices(['2048', '3072', '4096']),
      ),
    )
    .addOption(
      key(new Option('--passphrase-file <file>', 'encrypt the key with the first line of this file')),
    );
  addFileOptions(command).addOption(
    files(new Option('--as <name>', 'name of the files, without their ending')),
  );
  return addOutputOptions(command, 'service');
}

function addFileOptions(command: Subcommand): Subcommand {
  const files = (option: Option): Option => option.helpGroup('Files:');
  return command
    .addOption(files(new Option('--dir <dir>', 'where the files are, and go').default('.')))
    .addOption(files(new Option('--force', 'replace files that are there')));
}

function addBundle(io: Io, cert: Subcommand): void {
  const command = cert
    .verb(
      'bundle',
      'Put a certificate with its chain and its key into one file: NAME.bundle.pem or NAME.pfx; or as DER into two.',
    )
    .argument('<name>', 'of the files: NAME.pem and NAME.key')
    .addOption(
      new Option('--format <format>', 'pfx is PKCS#12, as Windows, .NET and Java import it')
        .choices(['pem', 'pfx', 'der'])
        .default('pem'),
    )
    .option('--passphrase-file <file>', 'encrypt the key with the first line of this file; pfx needs it')
    .option('--key-passphrase-file <file>', 'file with the passphrase that the key has now');
  addFileOptions(command).addOption(
    new Option('--as <name>', 'name of the new file, without its ending').helpGroup('Files:'),
  );
  addOutputOptions(command, 'service').action(async (name: string, flags: BundleFlags) => {
    const { writeBundle } = await import('./cert/bundle.js');
    await writeBundle(io, name, flags);
  });
}

function addVerify(io: Io, cert: Subcommand): void {
  const command = cert
    .verb(
      'verify',
      'Look at a PEM file as the other side of a connection will, and say what is wrong with it, with the line.',
    )
    .argument('<file>', 'certificate with its chain; a key in it is looked at too')
    .option('--ca <file>', 'authorities that the other side knows; as often as needed', collect)
    .option('--key <file>', 'the key that should belong to it')
    .option('--key-passphrase-file <file>', 'file with the passphrase of the key')
    .addOption(new Option('--for <use>', 'what it has to be good for').choices(['device', 'server', 'ca']))
    .option('--device <id>', 'it has to be the certificate of this device')
    .option('--host <name>', 'it has to be the certificate of this server')
    .option('--at <time>', 'at this time instead of now', time)
    .option('--warn <dur>', 'say it when one expires so soon', duration, 30 * 86_400_000);
  addOutputOptions(command, 'service').action(async (file: string, flags: VerifyFlags) => {
    const { verifyFile } = await import('./cert/verify.js');
    await verifyFile(io, file, flags);
  });
}

function addThumbprint(io: Io, cert: Subcommand): void {
  const command = cert
    .verb('thumbprint', 'Print the thumbprints of a certificate, as the hub registers them.')
    .argument('<file>', 'PEM file; its first certificate counts')
    .option('--sha1', 'this one alone')
    .addOption(new Option('--sha256', 'this one alone').conflicts('sha1'));
  addOutputOptions(command, 'service').action(async (file: string, flags: ThumbprintFlags) => {
    const { printThumbprints } = await import('./cert/thumbprint.js');
    await printThumbprints(io, file, flags);
  });
}

function list(text: string): string[] {
  return text.split(',').map((name) => name.trim().replace(/^(?:DNS|IP):/i, ''));
}
