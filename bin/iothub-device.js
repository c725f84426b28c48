#!/usr/bin/env -S node --use-openssl-ca
'use strict';
const { join } = require('node:path');

// The one answer that needs nothing else, and that scripts ask for again and again.
if (process.argv.length === 3 && ['-V', '--version'].includes(process.argv[2])) {
  process.stdout.write(`${require('../package.json').version}\n`);
} else {
  const { runBundle } = require('./bundle.js');
  const [, , subcommand] = process.argv;
  const bundle = ['run', 'send'].includes(subcommand)
    ? `iothub-device-${subcommand}.cjs`
    : 'iothub-device.cjs';
  runBundle(join(__dirname, '../dist/cli', bundle)).main('iothub-device');
}
