#!/usr/bin/env -S node --use-openssl-ca
'use strict';
const { join } = require('node:path');
const { runBundle } = require('./bundle.js');

runBundle(join(__dirname, '../dist/cli/iothub-device.cjs')).main('iothub-device');
