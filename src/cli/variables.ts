/** Which of the three commands, and so whose variables it reads: a device must never pick up a hub policy's key. */
export type Side = 'device' | 'service' | 'emulator';

/** `IOTHUB_DEVICE_OUTPUT` for ('device', 'OUTPUT'). */
export function variable(side: Side, name: string): string {
  return `IOTHUB_${side.toUpperCase()}_${name}`;
}
