import type { Direction, LinkKind } from './addresses.js';
import type { ClientConnection } from './connection.js';
import { hubError } from './errors.js';
import type { Hub } from './hub.js';
import type { HubMessage } from './message.js';

/**
 * The official end-to-end suites ask the hub to misbehave by sending it a message with these properties. Like their
 * test hubs, ours accepts such a message, forwards it to nobody, and does what it says after the delay.
 */
const typeName = 'AzIoTHub_FaultOperationType';
const delayName = 'AzIoTHub_FaultOperationDelayInSecs';
const durationName = 'AzIoTHub_FaultOperationDurationInSecs';

/** True when the message was such a request, and was taken as one. */
export function takeFaultMessage(message: HubMessage, connection: ClientConnection, hub: Hub): boolean {
  const type = message.properties[typeName];
  if (typeof type !== 'string') return false;
  hub.record.add({ event: 'fault', fault: type });
  const delayMs = seconds(message.properties[delayName]) * 1000;
  const durationMs = seconds(message.properties[durationName]) * 1000;
  hub.clock.at(hub.now() + delayMs, () => {
    perform(type.toLowerCase(), durationMs, connection, hub);
  });
  return true;
}

function perform(type: string, durationMs: number, connection: ClientConnection, hub: Hub): void {
  const error = hubError('amqp:internal-error', 500_001, `fault injection: ${type}`, hub.now());
  const links = linksOf[type];
  const condition = rejections[type];
  if (links) {
    const [link, direction] = links;
    const why = hubError('amqp:link:detach-forced', 500_001, `fault injection: ${type}`, hub.now());
    connection.end({ act: 'detach', ...why }, { link, direction });
  } else if (condition !== undefined) {
    connection.rejectTelemetry(condition, durationMs);
  } else if (type === 'killtcp') connection.drop();
  else if (type === 'killamqpsession') connection.end({ act: 'end', ...error }, {});
  else if (type === 'killamqpconnection') connection.kill(error);
  else if (type === 'shutdownamqp') connection.kill(undefined);
}

/** Which links a fault detaches. */
const linksOf: Record<string, [LinkKind, Direction]> = {
  killamqpcbslinkreq: ['cbs', 'out'],
  killamqpcbslinkresp: ['cbs', 'in'],
  killamqpd2clink: ['telemetry', 'out'],
  killamqpc2dlink: ['commands', 'in'],
  killamqptwinlinkreq: ['twin', 'out'],
  killamqptwinlinkresp: ['twin', 'in'],
  killamqpmethodreqlink: ['methods', 'in'],
  killamqpmethodresplink: ['methods', 'out'],
};

/** What telemetry is rejected with, for as long as the fault lasts. */
const rejections: Record<string, string> = {
  invokethrottling: 'com.microsoft:device-container-throttled',
  invokemaxmessagequota: 'amqp:resource-limit-exceeded',
  invokeautherror: 'amqp:unauthorized-access',
};

/** Some suites send a number, some its text. */
function seconds(value: unknown): number {
  const number = Number(value ?? 0);
  return number > 0 ? number : 0;
}
