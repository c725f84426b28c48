#!/usr/bin/env -S node --use-openssl-ca
'use strict';
import('../dist/cli/main.js').then(({ main }) => main('iothub-emulator'));
