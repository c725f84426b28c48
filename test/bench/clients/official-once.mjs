/** The smallest script that sends one message with the official SDK, and ends when the hub has it. */
import sdk from 'azure-iot-device';
import transports from 'azure-iot-device-amqp';

const client = sdk.Client.fromConnectionString(process.env.IOTHUB_DEVICE_CONNECTION_STRING, transports.Amqp);
await client.open();
const message = new sdk.Message('{"temperature":21.5}');
message.contentType = 'application/json';
message.contentEncoding = 'utf-8';
await client.sendEvent(message);
process.exit();
