import { resolve } from 'node:path';

import type { Emulator } from '../../emulator/emulator.js';

/** What clients of an emulator need, as lines for `eval` or `.`. The device is the first that was registered. */
export function environmentLines(emulator: Emulator, caFile: string, controlUrl: string): string {
  const [device] = emulator.devices;
  const ca = resolve(caFile);
  const httpsPort = emulator.httpsPort === 443 ? undefined : emulator.httpsPort?.toString();
  const variables: Record<string, string | undefined> = {
    IOTHUB_DEVICE_CONNECTION_STRING: device && emulator.deviceConnectionString(device.deviceId),
    // With a certificate a device needs no more than this and its id.
    IOTHUB_DEVICE_HOST: device === undefined ? emulator.hostName : undefined,
    IOTHUB_SERVICE_CONNECTION_STRING: emulator.serviceConnectionString(),
    IOTHUB_EVENTHUB_CONNECTION_STRING: emulator.eventHubConnectionString,
    IOTHUB_DEVICE_CA: ca,
    IOTHUB_SERVICE_CA: ca,
    IOTHUB_DEVICE_HTTPS_PORT: httpsPort,
    IOTHUB_SERVICE_HTTPS_PORT: httpsPort,
    NODE_EXTRA_CA_CERTS: ca,
    IOTHUB_EMULATOR_URL: controlUrl,
  };
  return Object.entries(variables)
    .filter((entry): entry is [string, string] => entry[1] !== undefined)
    .map(([name, value]) => `export ${name}='${value.replaceAll("'", String.raw`'\''`)}'\n`)
    .join('');
}
