// A command handler as a module: it runs inside the agent, which saves starting a program and makes it trusted code.
//
//   iothub-service send dev1 --prop command=restart --data '{"service":"mosquitto"}' --ack full --wait
//
// Returned: accept(), reject() or release(); nothing is accept. Thrown: reject, or release if it is a RetryLater.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

// What may be restarted is for the device to say, not for the message.
const services = new Set(['mosquitto', 'chrony']);

/** @type {import('iothub-device/handler').CommandHandler} */
export default {
  on: 'command',
  async handle(command, { signal, log }) {
    const { service } = command.json(); // not JSON: rejected
    if (!services.has(service)) return command.reject(`"${service}" is not to be restarted from afar`);
    const started = Date.now();
    try {
      await promisify(execFile)('systemctl', ['restart', service], { signal });
    } catch (error) {
      signal.throwIfAborted(); // at the deadline: later
      return command.release(`systemctl: ${error.message}`);
    }
    log.info('restarted', { service, ms: Date.now() - started });
    return command.accept({ reply: { restarted: service } });
  },
};
