/**
 * The library: a session with the hub, the agent's loop, and what identifies a device. Handlers written as modules
 * have `iothub-device/handler`, tests `iothub-device/emulator`.
 */
export { AgentError, type ErrorCode, type RetryClass } from './errors.js';
export { systemClock, type Clock } from './clock.js';
export { silentLog, type Log } from './log.js';
export type {
  Command,
  CommandOutcome,
  DeviceId,
  MessageFields,
  Properties,
  SendOutcome,
  TelemetryMessage,
} from './model.js';
export {
  parseDeviceConnectionString,
  parseEventHubConnectionString,
  parseServiceConnectionString,
  type DeviceConnectionString,
  type EventHubConnectionString,
  type ServiceConnectionString,
} from './identity/connection-string.js';
export { createSasToken, type SasTokenOptions } from './identity/sas.js';
export {
  deviceTokens,
  eventHubTokens,
  serviceTokens,
  type Token,
  type TokenMaker,
} from './identity/token.js';
export {
  readClientCertificate,
  type CertificateTexts,
  type ClientCertificate,
} from './identity/certificate.js';
export type { Endpoint, WebSocketWay } from './amqp/socket.js';
export type { HttpProxy } from './amqp/proxy.js';
export { EitherWay, type EitherWayOptions } from './amqp/either-way.js';
export { encodeFor, openHubSession, type HubSession, type HubSessionOptions } from './amqp/session.js';
export { runAgent, type AgentOptions } from './agent/run.js';
export type { AgentState } from './agent/state.js';
export { serveCommands } from './agent/commands.js';
export { serveMethods, type AnsweredMethod, type MethodOptions } from './agent/methods.js';
export { TwinKeeper, type TwinOptions } from './agent/twin.js';
export { readTwin, type TwinDocument } from './agent/twin-document.js';
export { createDispatcher, type Dispatcher, type DispatcherOptions } from './handlers/dispatch.js';
export { programHandler, type ProgramHandlerOptions } from './handlers/program.js';
export { openServiceClient, type ServiceClient, type ServiceOptions } from './service/client.js';
export { openCommandSender, type CommandSender, type CommandToSend } from './service/commands.js';
export {
  followFeedback,
  openFeedback,
  openFeedbackWait,
  type FeedbackBatch,
  type FeedbackRecord,
} from './service/feedback.js';
export {
  followNotifications,
  type DeliveredNotification,
  type FileNotification,
} from './service/notifications.js';
export { openMonitor, type Monitor, type MonitorOptions } from './service/monitor.js';
export { eventHubOf, findEventHub, type EventHub } from './service/event-hub.js';
export type { EventPosition } from './service/event-position.js';
export type { HubEvent } from './amqp/event-message.js';
export { RestClient, type RestOptions } from './service/rest.js';
export { Registry, type DeviceFields, type RegisteredDevice } from './service/registry.js';
export { Twins, type MethodAnswer, type MethodCall, type TwinChange } from './service/twins.js';
