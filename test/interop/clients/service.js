import iothub from 'azure-iothub';
import sdk from 'azure-iot-device';

import { serve, tell } from './rpc.js';

let client;
let registry;

const unwrapped = ({ responseBody }) => responseBody ?? null;

serve({
  async open(connectionString, { transport = 'amqp' } = {}) {
    const { Client, Registry } = iothub;
    client = Client.fromConnectionString(connectionString, transport === 'ws' ? iothub.AmqpWs : undefined);
    client.setRetryPolicy({ shouldRetry: () => false, nextRetryTimeout: () => 0 });
    registry = Registry.fromConnectionString(connectionString);
    await client.open();
  },
  async send(deviceId, { body, messageId, ack, expiresAt }) {
    const message = new sdk.Message(body);
    message.messageId = messageId;
    if (ack) message.ack = ack;
    if (expiresAt) message.expiryTimeUtc = expiresAt;
    await client.send(deviceId, message);
  },
  async feedback() {
    const { result: receiver } = await client.getFeedbackReceiver();
    receiver.on('message', (message) => tell('feedback', JSON.parse(message.data.toString())));
  },
  async notifications() {
    const { result: receiver } = await client.getFileNotificationReceiver();
    receiver.on('message', (message) => tell('notification', JSON.parse(message.data.toString())));
  },
  async invoke(deviceId, request) {
    const { result } = await client.invokeDeviceMethod(deviceId, request);
    return result;
  },
  async invokeModule(deviceId, moduleId, request) {
    const { result } = await client.invokeDeviceMethod(deviceId, moduleId, request);
    return result;
  },
  async registry(method, ...args) {
    return unwrapped(await registry[method](...args));
  },
  async query(sql, pageSize) {
    const query = registry.createQuery(sql, pageSize);
    const pages = [];
    while (query.hasMoreResults) pages.push((await query.next(query.continuationToken)).result);
    return pages;
  },
  async updateTwin(deviceId, patch) {
    const { responseBody: twin } = await registry.getTwin(deviceId);
    return (await twin.update(patch)).result.properties.desired;
  },
  async close() {
    await client.close();
  },
});
