#!/usr/bin/env -S node --use-openssl-ca
'use strict';
const { join } = require('node:path');

// The one answer that needs nothing else, and that scripts ask for again and again.
if (process.argv.length === 3 && ['-V', '--version'].includes(process.argv[2])) {
  process.stdout.write(`${require('../package.json').version}\n`);
} else {
  const { runBundle } = require('./bundle.js');
  const bundle = process.argv[2] === 'send' ? 'iothub-device-send.cjs' : 'iothub-device.cjs';
  runBundle(join(__dirname, '../dist/cli', bundle)).main('iothub-device');
}
