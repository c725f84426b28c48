import { packageFile } from './package-file.js';

/** The command that runs a module in a process of its own; the module's file comes behind it. */
export const moduleProcess = [
  process.execPath,
  packageFile('bin/iothub-device.js'),
  'handler',
  'exec',
  '--stream',
] as const;
