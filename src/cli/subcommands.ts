import type { Command } from 'commander';

import type { Io } from './io.js';

export type ToolName = 'iothub-device' | 'iothub-service' | 'iothub-emulator';

export interface SubcommandEntry {
  name: string;
  /** One line for the list in `--help`. */
  summary: string;
  /** Its file, loaded only when it is the one that was asked for: start-up is a feature. */
  load: () => Promise<(io: Io) => Command>;
}

export interface Tool {
  description: string;
  /** First thing on the help page. */
  examples: readonly string[];
  subcommands: readonly SubcommandEntry[];
}

/** The whole command surface. A subcommand is one file that exports a function from `Io` to `Command`. */
export const tools: Record<ToolName, Tool> = {
  'iothub-device': {
    description: 'Device agent for Azure IoT Hub: telemetry out, commands in, over one AMQP connection.',
    examples: [`iothub-device send --data '{"temperature":21.5}'`, 'iothub-device run --exec ./handler'],
    subcommands: [
      {
        name: 'send',
        summary: 'send telemetry and wait for the answer',
        load: async () => (await import('./device/send.js')).sendCommand,
      },
      {
        name: 'run',
        summary: 'the agent: stay connected and handle commands',
        load: async () => (await import('./device/run.js')).runCommand,
      },
      {
        name: 'receive',
        summary: 'print commands and settle them',
        load: async () => (await import('./device/receive.js')).receiveCommand,
      },
      {
        name: 'status',
        summary: 'how the running agent fares',
        load: async () => (await import('./device/status.js')).statusCommand,
      },
      {
        name: 'check',
        summary: 'what of the way to the hub works, and what to do',
        load: async () => (await import('./device/check.js')).checkCommand,
      },
      {
        name: 'spool',
        summary: 'telemetry that waits on disk, and what the hub refused',
        load: async () => (await import('./device/spool.js')).spoolCommand,
      },
      {
        name: 'inbox',
        summary: 'commands that were accepted and are not done, and the dead ones',
        load: async () => (await import('./device/inbox.js')).inboxCommand,
      },
      {
        name: 'config',
        summary: 'the configuration: begin one, check it, see what holds',
        load: async () => (await import('./device/config.js')).configCommand,
      },
      {
        name: 'handler',
        summary: 'handlers: list them, try one, begin one',
        load: async () => (await import('./device/handler.js')).handlerCommand,
      },
      {
        name: 'method',
        summary: 'answer direct methods',
        load: async () => (await import('./device/method.js')).methodCommand,
      },
      {
        name: 'twin',
        summary: 'the device twin: read it, report, follow what is desired',
        load: async () => (await import('./device/twin.js')).twinCommand,
      },
      {
        name: 'cert',
        summary: "the device's certificate: request one, look into it, see when it ends",
        load: async () => (await import('./device/cert.js')).certCommand,
      },
      {
        name: 'bench',
        summary: 'how much telemetry the hub takes from here, and how fast',
        load: async () => (await import('./device/bench.js')).benchCommand,
      },
      {
        name: 'sas',
        summary: 'print a SAS token',
        load: async () => (await import('./device/sas.js')).sasCommand,
      },
      {
        name: 'unit',
        summary: 'print the systemd unit of this installation',
        load: async () => (await import('./device/unit.js')).unitCommand,
      },
      completion('iothub-device'),
    ],
  },
  'iothub-service': {
    description: 'The other side of Azure IoT Hub: what an operator does with devices.',
    examples: ['iothub-service send dev1 --data reboot --wait', 'iothub-service monitor --from -15m'],
    subcommands: [
      {
        name: 'send',
        summary: 'send commands and wait for their feedback',
        load: async () => (await import('./service/send.js')).serviceSendCommand,
      },
      {
        name: 'monitor',
        summary: 'print what devices send',
        load: async () => (await import('./service/monitor.js')).monitorCommand,
      },
      {
        name: 'feedback',
        summary: 'what became of commands',
        load: async () => (await import('./service/feedback.js')).feedbackCommand,
      },
      {
        name: 'method',
        summary: 'call a direct method',
        load: async () => (await import('./service/method.js')).callMethodCommand,
      },
      {
        name: 'twin',
        summary: 'desired properties and tags',
        load: async () => (await import('./service/twin.js')).serviceTwinCommand,
      },
      {
        name: 'device',
        summary: 'add, list, show, change and remove devices; their connection strings',
        load: async () => (await import('./service/device.js')).deviceCommand,
      },
      {
        name: 'cert',
        summary: 'certificates: an authority, devices, servers; what is wrong with one',
        load: async () => (await import('./service/cert.js')).certCommand,
      },
      {
        name: 'notifications',
        summary: 'print the files that devices upload',
        load: async () => (await import('./service/feedback.js')).notificationsCommand,
      },
      {
        name: 'sas',
        summary: 'print a SAS token',
        load: async () => (await import('./service/sas.js')).serviceSasCommand,
      },
      {
        name: 'check',
        summary: 'what of the way to the hub works',
        load: async () => (await import('./service/check.js')).serviceCheckCommand,
      },
      completion('iothub-service'),
    ],
  },
  'iothub-emulator': {
    description: 'A local Azure IoT Hub on loopback, for examples and tests without an account.',
    examples: ['iothub-emulator start --device dev-01'],
    subcommands: [
      {
        name: 'start',
        summary: 'run a local IoT Hub',
        load: async () => (await import('./emulator/start.js')).startCommand,
      },
      {
        name: 'env',
        summary: 'print connection strings as export lines',
        load: async () => (await import('./emulator/env.js')).envCommand,
      },
      {
        name: 'wait',
        summary: 'wait until an emulator is ready',
        load: async () => (await import('./emulator/wait.js')).waitCommand,
      },
      {
        name: 'ctl',
        summary: 'faults, clock and devices of a running emulator',
        load: async () => (await import('./emulator/ctl.js')).ctlCommand,
      },
      completion('iothub-emulator'),
    ],
  },
};

function completion(tool: ToolName): SubcommandEntry {
  return {
    name: 'completion',
    summary: 'print a script with which a shell completes all this',
    load: async () => (await import('./completion/command.js')).completionCommand(tool),
  };
}
