import { Option } from 'commander';

import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addOutputOptions, type OutputFlags } from '../output.js';
import { duration } from '../values.js';
import { variable } from '../variables.js';

export interface RequestFlags {
  key: string;
  keyPassphraseFile?: string;
  out?: string;
  rsa?: true | '2048' | '3072' | '4096';
  force?: boolean;
}

export interface ExpiresFlags extends OutputFlags {
  cert?: string;
  /** Milliseconds. */
  warn: number;
}

export interface ShowFlags extends OutputFlags {
  cert?: string;
}

/** `iothub-device cert`: the certificate that this device shows. */
export function certCommand(io: Io): Subcommand {
  const cert = new Subcommand('cert')
    .description(
      "The device's own certificate: what is in it, when it ends, and a request for one. What signs it is a matter of " +
        'the other side: iothub-service cert.',
    )
    .examples(
      'iothub-device cert csr dev1 --key dev1.key > dev1.csr    # makes the key, if there is none yet',
      'iothub-device cert show dev1.pem',
      'iothub-device cert expires dev1.pem --warn 30d || systemctl start renew-certificate',
    )
    .exits(
      'ok',
      ['data', 'it has expired, is not valid yet, or cannot be read'],
      'no-input',
      ['cannot-create', 'a file is there already, or cannot be made'],
      ['try-again', 'it expires soon'],
    );
  addShow(io, cert);
  addRequest(io, cert);
  addExpires(io, cert);
  return cert;
}

function addShow(io: Io, cert: Subcommand): void {
  const command = cert.verb('show', 'Print what stands in a certificate, and in those behind it.');
  addFile(command);
  addOutputOptions(command, 'device').action(async (file: string | undefined, flags: ShowFlags) => {
    const { showCertificates } = await import('./cert/show.js');
    await showCertificates(io, file ?? flags.cert, flags);
  });
}

function addRequest(io: Io, cert: Subcommand): void {
  cert
    .verb(
      'csr',
      'Print a signing request for this device. Its key is made when the file is not there yet, and never leaves it.',
    )
    .argument('<device>', 'device id, or DEVICE/MODULE')
    .requiredOption('--key <file>', 'PEM file of the key (mode 0600)')
    .option('--key-passphrase-file <file>', 'file with the passphrase of the key')
    .addOption(
      new Option('--rsa [bits]', 'a new key is RSA instead of EC P-256 (2048)').choices([
        '2048',
        '3072',
        '4096',
      ]),
    )
    .option('--out <file>', 'write it there instead')
    .option('--force', 'replace that file')
    .action(async (name: string, flags: RequestFlags) => {
      const { requestCertificate } = await import('./cert/request.js');
      await requestCertificate(io, name, flags);
    });
}

function addExpires(io: Io, cert: Subcommand): void {
  const command = cert
    .verb('expires', 'Say when a certificate ends, and exit by how near that is; for timers.')
    .option('--warn <dur>', 'how near is near', duration, 30 * 86_400_000);
  addFile(command);
  addOutputOptions(command, 'device').action(async (file: string | undefined, flags: ExpiresFlags) => {
    const { tellExpiry } = await import('./cert/expires.js');
    await tellExpiry(io, file ?? flags.cert, flags);
  });
}

function addFile(command: Subcommand): void {
  command
    .argument('[file]', 'PEM file of the certificate')
    .addOption(new Option('--cert <file>', 'the same').env(variable('device', 'CERT')));
}
