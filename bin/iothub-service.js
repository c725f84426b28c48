#!/usr/bin/env -S node --use-openssl-ca
import { main } from '../dist/cli/main.js';

await main('iothub-service');
