import { exitCodeMeanings, exitCodes } from './exit-codes.js';
import type { ToolName } from './subcommands.js';

/** A page that belongs to no single command: `iothub-device help times`. */
export interface HelpTopic {
  name: string;
  page: (tool: ToolName) => string;
}

export const helpTopics: readonly HelpTopic[] = [
  { name: 'configuration', page: () => config },
  { name: 'connection', page: connection },
  { name: 'environment', page: environment },
  { name: 'exit-codes', page: exitCodesPage },
  { name: 'handlers', page: () => handlers },
  { name: 'ndjson', page: () => ndjson },
  { name: 'times', page: () => times },
];

const config = `A configuration is TOML, or JSON if its name ends in .json. "iothub-device config init" writes one with every key, its
default and what it means; "config check" says what is wrong in one, "config show --origin" what holds and why.

The first of these that is there is read, unless --config FILE (or $IOTHUB_DEVICE_CONFIG) names one or --no-config is given:

  $XDG_CONFIG_HOME/iothub-device/config.toml    without the variable, ~/.config/iothub-device/config.toml
  $CONFIGURATION_DIRECTORY/config.toml          which systemd sets
  /etc/iothub-device/config.toml

Then come the files conf.d/*.toml and *.json beside it, in the order of their names: handlers are added, of any other key
the last file counts. A path in a file is relative to that file. For one run, a flag wins over its variable in the
environment, a variable over the files, and these over the default.

A secret is { credential = "NAME" } (systemd), { file = "PATH" }, { env = "NAME" } or, in a file for its owner only, the
text itself. Nothing in a file is replaced by variables.
`;

function exitCodesPage(): string {
  const rows = Object.entries(exitCodes).map(
    ([name, code]) => `  ${String(code).padEnd(4)}${exitCodeMeanings[name as keyof typeof exitCodes]}`,
  );
  return `Exit codes, those of sysexits.h:

${rows.join('\n')}
  130 interrupted by SIGINT, 143 by SIGTERM

A command that sends several messages exits by the first that failed, but by one that will fail again (65, 77 …)
rather than by one that may pass when it is tried again (68, 69, 75).
`;
}

function environment(tool: ToolName): string {
  const prefix = tool.toUpperCase().replace('-', '_');
  const own = variables[tool].map(([name, what]): [string, string] => [`${prefix}_${name}`, what]);
  const rows = [...own, ...(tool === 'iothub-service' ? eventHubVariables : []), ...shared];
  const width = Math.max(...rows.map(([name]) => name.length));
  return `Variables of the environment. A flag wins over its variable, a variable over the configuration.

${rows.map(([name, what]) => `  ${name.padEnd(width)}  ${what}`).join('\n')}
${tool === 'iothub-emulator' ? '' : credentials}${tool === 'iothub-device' ? state : ''}
DEBUG and NODE_TLS_REJECT_UNAUTHORIZED are dropped: they would print keys, and trust anyone.
`;
}

const hubVariables: [string, string][] = [
  ['CONNECTION_STRING', 'who we are; taken out of the environment once it is read'],
  ['CONNECTION_STRING_FILE', 'file that holds it, readable by its owner only'],
  ['CA', 'PEM file of a further authority to trust'],
  ['TRANSPORT', 'auto, amqp or amqp-ws'],
  ['PROXY', 'URL of an HTTP proxy for WebSocket and REST, with user name and password where it wants them'],
  ['HTTPS_PORT', 'port for WebSocket and REST, where it is not 443'],
  ['OUTPUT', 'auto, text, json or none'],
  ['LOG_LEVEL', 'error, warn, info, debug or trace'],
  ['LOG_FORMAT', 'auto, text, json or journal'],
];

const eventHubVariables: [string, string][] = [
  [
    'IOTHUB_EVENTHUB_CONNECTION_STRING',
    'event hub to monitor, instead of asking the hub; or a file, with _FILE',
  ],
];

const variables: Record<ToolName, [string, string][]> = {
  'iothub-device': [
    ...hubVariables,
    ['HOST', 'name of the hub, where there is no connection string'],
    ['DEVICE_ID', 'who we are there'],
    ['MODULE_ID', 'which module of the device'],
    ['CERT', 'PEM file of the certificate of a device that has no key'],
    ['KEY', 'PEM file of the key of the certificate, readable by its owner only'],
    ['KEY_PASSPHRASE_FILE', 'file with the passphrase of that key'],
    ['GATEWAY_HOST', 'IoT Edge gateway to connect to instead of the hub'],
    ['ATTACH', 'after-token or with-token: --attach'],
    ['CONFIG', 'configuration of the agent'],
  ],
  'iothub-service': hubVariables,
  'iothub-emulator': [
    ['PORT', 'port for AMQP over TLS'],
    ['HTTPS_PORT', 'port for REST and AMQP over WebSocket'],
    ['AMQP_PORT', 'port for AMQP without TLS'],
    ['HTTP_PORT', 'port for health and control'],
    ['HOST', 'address to listen on'],
    ['URL', 'where ctl, env and wait find a running emulator'],
    ['OUTPUT', 'auto, text, json or none'],
  ],
};

const credentials = `
Without any connection string the file "connection-string" in $CREDENTIALS_DIRECTORY is read, which systemd sets.
`;

const state = `
What has to survive is kept in $STATE_DIRECTORY, which systemd sets, else in $XDG_STATE_HOME/iothub-device or
~/.local/state/iothub-device: a directory for each device.
`;

const shared: [string, string][] = [
  ['NO_COLOR', 'no colours when it is set'],
  ['TZ', 'zone of the times that are shown'],
];

function connection(askedOf: ToolName): string {
  // The emulator is where the way leads to.
  const tool = askedOf === 'iothub-emulator' ? 'iothub-device' : askedOf;
  const own = tool.toUpperCase().replace('-', '_');
  const inConfiguration = tool === 'iothub-device' ? ', proxy under [hub] in the configuration' : '';
  return `The way to the hub. "${tool} check" tells where it ends.

  --transport auto     port 5671; when that is refused, or gives no TLS answer for 5 s, inside of a WebSocket on port
                       443 as well, which is said once. Who answers and is not trusted is not gone around.
  --transport amqp     port 5671, or the port in the host name
  --transport amqp-ws  a WebSocket on port 443, or on --https-port

An HTTP proxy carries the WebSocket, and REST; it cannot carry AMQP on port 5671.

  --proxy URL, $${own}_PROXY${inConfiguration}
                       is used always, and auto means amqp-ws then
  $https_proxy, $HTTPS_PROXY, $all_proxy, $ALL_PROXY
                       is used but to this machine, and to hosts in $no_proxy or $NO_PROXY: names with all that is
                       below them, addresses, ranges (10.0.0.0/8), each with a port or without; or *

  http://USER:PASSWORD@HOST:PORT, with : / @ in user name and password percent-encoded; not on the command line, where
  others could see it.

Whom to trust: the authorities that the system knows, and with --ca FILE one more.
${tool === 'iothub-device' ? certificateAndGateway : ''}`;
}

const certificateAndGateway = `
A device with a certificate has x509=true in its connection string, or --host and --device-id instead of one. Its files
are --cert (with its intermediates) and --key, and --key-passphrase-file where the key is encrypted. They are read for every
connection, so a certificate that was renewed needs no restart.

GatewayHostName in the connection string, or --gateway-host, is whom to connect to instead of the hub.
`;

const handlers = `A handler is a program that is started once for each command, direct method or change of a desired property, without a
shell. Its body, payload or value is on standard input, all else in variables. Its exit code says what becomes of a
command, and is the status of a method and of a property's acknowledgement:

  0                       accept   the hub takes it as done                200
  75, 69, 71, 74          release  later: the hub delivers it again        503
  64 to 67, 76            reject   no, for good: the hub dead-letters it   400
  77                      reject                                           403
  1 and any other         reject                                           500
  126, 127, not found     release  the installation is broken              501
  killed                  release  three times, then reject                500
  too late                release  three times, then reject                504

What it prints is a method's answer, JSON or text, and is merged into the reported properties if it is a JSON object. A
property is reported as {"value":…,"ac":status,"av":version,"ad":reason}; where a command is released it is tried again.

  IOTHUB_EVENT              command, method or twin; IOTHUB_HANDLER is the handler's name
  IOTHUB_DEVICE_ID          IOTHUB_MODULE_ID  IOTHUB_CONTENT_TYPE
  IOTHUB_ATTEMPT            1 for the first run, by the agent's count
  IOTHUB_DEADLINE           when it is stopped

  IOTHUB_MESSAGE_ID  IOTHUB_CORRELATION_ID  IOTHUB_USER_ID  IOTHUB_CONTENT_ENCODING
  IOTHUB_PROP_<NAME>        an application property; all of them as JSON in IOTHUB_PROPERTIES
  IOTHUB_ENQUEUED_TIME      IOTHUB_EXPIRES  IOTHUB_SEQUENCE_NUMBER  IOTHUB_DELIVERY_COUNT, the hub's
  IOTHUB_ACK                the feedback its sender asked for

  IOTHUB_METHOD             name of the method; IOTHUB_REQUEST_ID
  IOTHUB_TWIN_PATH          name of the property, fan.speed for what is inside another
  IOTHUB_TWIN_VERSION       $version of the desired properties

Of the agent's own variables it gets PATH, HOME, LANG and TZ. The last line on its standard error is the reason that
goes with a "no" or a "later". Nobody but root and the agent's user may be able to change the program.
`;

const ndjson = `One message is one line of JSON. "send --ndjson" reads it; what is received is printed the same way, so it can be sent
again. One of the three bodies has to be there, the rest when it is wanted; any other key is an error.

  {"body":{"t":21.5},"properties":{"room":"a"},"messageId":"m1"}

  body             JSON, sent as it is written
  bodyText         text, sent as UTF-8
  bodyBase64       bytes
  properties       application properties: texts, by name
  contentType      default: application/json, text/plain or application/octet-stream, by the name of the body
  contentEncoding  default: utf-8 for JSON and text; null for none, and so for contentType
  messageId        default: a ULID
  correlationId, userId
  expiresAt        time after which it is worthless
  creationTime, component, outputName   telemetry only
  ack              commands only: none, positive, negative or full
  deviceId, moduleId   commands only: for whom, instead of the one on the command line
  hub              what a hub added; read over

Of each message one line is printed, in the same order:

  {"line":1,"messageId":"m1","outcome":"accepted","ms":41}
  {"line":2,"messageId":"m2","outcome":"rejected","ms":7,"condition":"amqp:…","error":"…","retryable":false}
  {"line":3,"outcome":"failed","error":"it is not JSON","retryable":false}

"queued" instead of "accepted" means on disk, with send --queue.
`;

const times = `Durations  500ms  30s  5m  1h30m  2d  PT5M
Sizes      512  64KB (64 000 bytes)  256KiB (262 144 bytes)  1MiB
Times      2026-11-20T05:00:00Z  2026-11-20T06:00:00+01:00
           1763614800 (seconds since 1970)  1763614800123 (milliseconds)
           -15m  +1h  now  now-1h
`;
