import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';

import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { packageFile } from '../package-file.js';

interface UnitFlags {
  config: string;
  socket?: true;
}

/** `iothub-device unit`: the systemd unit for this installation. */
export function unitCommand(io: Io): Subcommand {
  return new Subcommand('unit')
    .description(
      'Print a systemd unit that runs the agent of this installation, hardened and with a watchdog.',
    )
    .examples(
      'iothub-device unit | sudo tee /etc/systemd/system/iothub-device.service',
      'iothub-device unit --socket | sudo tee /etc/systemd/system/iothub-device.socket',
      'sudo systemctl daemon-reload && sudo systemctl enable --now iothub-device',
    )
    .exits('ok', 'usage')
    .option('--config <file>', 'configuration that it runs with', '/etc/iothub-device/config.toml')
    .option('--socket', 'print the unit of its control socket instead: who may open it, by their group')
    .action(async ({ config, socket }: UnitFlags) => {
      if (socket === true) {
        await io.stdout.write(await readFile(packageFile('config/systemd/iothub-device.socket'), 'utf8'));
        return;
      }
      const template = await readFile(packageFile('config/systemd/iothub-device.service'), 'utf8');
      // The paths as they are here: what is on the PATH of this shell may not be on that of systemd.
      const program = [process.execPath, '--use-openssl-ca', packageFile('bin/iothub-device.js')];
      const command = [...program, 'run', '--config', resolve(config)].map(quoted).join(' ');
      await io.stdout.write(template.replace(/^ExecStart=.*$/m, () => `ExecStart=${command}`));
    });
}

/** As systemd.service(5) wants the words of a command line: quoted where needed, `%` and `$` doubled. */
function quoted(word: string): string {
  const escaped = word.replace(/[\\"]/g, '\\$&').replaceAll('%', '%%').replaceAll('$', '$$$$');
  return /^[\w@%+=:,./-]+$/.test(escaped) ? escaped : `"${escaped}"`;
}
