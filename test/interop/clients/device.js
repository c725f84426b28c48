import { Readable } from 'node:stream';

import sdk from 'azure-iot-device';
import transports from 'azure-iot-device-amqp';

import { serve, tell } from './rpc.js';

const { Client, ModuleClient, Message, SharedAccessKeyAuthenticationProvider } = sdk;
const noRetry = { shouldRetry: () => false, nextRetryTimeout: () => 0 };
const { Amqp, AmqpWs } = transports;
let client;
/** Its tokens live this long, and are renewed when a quarter of that is left. */
const shortLived = (connectionString, seconds) =>
  SharedAccessKeyAuthenticationProvider.fromConnectionString(connectionString, seconds, seconds / 4);
let twin;
const received = new Map();

serve({
  async open(
    connectionString,
    { transport = 'amqp', module = false, certificate, retry = false, tokenSeconds } = {},
  ) {
    const kind = module ? ModuleClient : Client;
    const protocol = transport === 'ws' ? AmqpWs : Amqp;
    client =
      tokenSeconds === undefined
        ? kind.fromConnectionString(connectionString, protocol)
        : kind.fromAuthenticationProvider(shortLived(connectionString, tokenSeconds), protocol);
    if (!retry) client.setRetryPolicy(noRetry);
    if (certificate) await client.setOptions(certificate);
    client.on('disconnect', (error) => tell('disconnect', error?.constructor?.name));
    client.on('error', (error) => tell('error', error.message));
    await client.open();
  },
  async send({ body, messageId, properties = {}, contentType }) {
    const message = new Message(body);
    message.messageId = messageId;
    if (contentType) message.contentType = contentType;
    for (const [key, value] of Object.entries(properties)) message.properties.add(key, value);
    const result = await client.sendEvent(message);
    return result.constructor.name;
  },
  receive() {
    client.on('message', (message) => {
      received.set(message.messageId, message);
      tell('message', {
        messageId: message.messageId,
        body: message.getData().toString(),
        ack: message.ack,
        properties: Object.fromEntries(message.properties.propertyList.map(({ key, value }) => [key, value])),
      });
    });
  },
  async settle(messageId, how) {
    await client[how](received.get(messageId));
  },
  method(name, status, payload) {
    client.onDeviceMethod?.(name, (request, response) => response.send(status, payload ?? request.payload));
    client.onMethod?.(name, (request, response) => response.send(status, payload ?? request.payload));
  },
  async twin() {
    twin = await client.getTwin();
    twin.on('properties.desired', (patch) => tell('desired', patch));
    return twin.properties;
  },
  async report(patch) {
    await new Promise((resolve, reject) => {
      twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()));
    });
  },
  async upload(name, text) {
    const bytes = Buffer.from(text);
    await client.uploadToBlob(name, Readable.from([bytes]), bytes.length);
  },
  async close() {
    await client.close();
  },
});
