/**
 * `azure-iot-device` with `azure-iot-device-amqp`, as its documentation says to use it. The work is in the first
 * argument, as JSON; one line of JSON comes out.
 */
import sdk from 'azure-iot-device';
import transports from 'azure-iot-device-amqp';

import { bodyOf, contentEncoding, contentType, idOf, Meter, print, property } from './meter.js';

const { Client, Message } = sdk;
const work = JSON.parse(process.argv[2]);
const client = Client.fromConnectionString(work.connectionString, transports.Amqp);
await client.open();
await { send, commands, daemon }[work.kind]();

/** Each message on its own, and so many under way. */
function send() {
  const meter = new Meter(work);
  const body = bodyOf(work.bytes);
  let next = 0;
  const sendOne = () => {
    if (next === meter.total) return;
    meter.sent();
    client.sendEvent(message(body, next++), (error) => {
      if (error) throw error;
      if (meter.done()) meter.report();
      else sendOne();
    });
  };
  for (let n = 0; n < work.window; n++) sendOne();
}

function commands() {
  const meter = new Meter(work);
  let taken = 0;
  client.on('message', (command) => {
    if (taken++ >= meter.total) return;
    meter.sent();
    client.complete(command, (error) => {
      if (error) throw error;
      if (meter.done()) meter.report();
    });
  });
}

/** Stays, with commands, methods and the twin, and sends so many messages a second. */
async function daemon() {
  client.on('message', (command) => client.complete(command, () => undefined));
  client.onDeviceMethod('reboot', (_request, response) => response.send(200));
  const twin = await client.getTwin();
  twin.on('properties.desired', () => undefined);
  const body = bodyOf(100);
  let n = 0;
  if (work.perSecond > 0) {
    setInterval(() => {
      for (let i = 0; i < work.perSecond / 20; i++) client.sendEvent(message(body, n++), () => undefined);
    }, 50);
  }
  print({ online: true });
}

function message(body, n) {
  const made = new Message(body);
  made.messageId = idOf(n);
  made.contentType = contentType;
  made.contentEncoding = contentEncoding;
  made.properties.add(...property);
  return made;
}
