import { readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { startEmulator } from '../../dist/emulator/emulator.js';

/** An emulator in a process of its own, that tells its open descriptors and its heap after a collection. */
setFlagsFromString('--expose-gc');
const gc = runInNewContext('gc');

const hub = await startEmulator({ devices: ['d'], recordLimit: 100 });
process.on('message', () => {
  gc();
  process.send({
    descriptors: readdirSync('/proc/self/fd').length,
    heap: process.memoryUsage().heapUsed,
    connections: hub.connections.length,
  });
});
process.on('disconnect', () => process.exit());
process.send({
  port: hub.port,
  ca: hub.ca,
  key: /SharedAccessKey=(.*)/.exec(hub.deviceConnectionString('d'))[1],
});
