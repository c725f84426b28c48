import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

import type { Emulator } from '../../src/emulator/emulator.js';
import { device, startHub } from '../amqp/hub.js';
import { Proxy } from '../faults/proxy.js';
import { environmentOf, Folder, runTool, ToolProcess } from '../cli/tool.js';

/** A hub, and an agent with a control socket, as a process of its own. */
export interface ControlledAgent extends AsyncDisposable {
  hub: Emulator;
  /** Between the agent and its hub, if that is `distant`. */
  network: Proxy;
  folder: Folder;
  env: Record<string, string>;
  agent: ToolProcess;
  socket: string;
  /** Another agent in the same place. */
  restart(): Promise<void>;
  /** `curl --unix-socket … http://agent/v1/…`: what it printed, and the status. */
  curl(path: string, ...args: string[]): Promise<{ status: number; body: string; json: unknown }>;
  tool(args: readonly string[], input?: string): ReturnType<typeof runTool>;
}

export async function startAgent({
  config = '',
  online = true,
  distant = false,
  env: more = {},
  hubOptions = {},
}: {
  config?: string;
  /** Whether the hub takes it; else it waits, refused. */
  online?: boolean;
  /** Whether there is a network on the way, in which things can happen. */
  distant?: boolean;
  env?: Record<string, string>;
  hubOptions?: Parameters<typeof startHub>[0];
} = {}): Promise<ControlledAgent> {
  const hub = await startHub(hubOptions);
  if (!online) hub.setDeviceStatus(device, 'disabled');
  const network = await Proxy.start(hub.port);
  const folder = await Folder.make();
  const socket = join(folder.path, 'run', 'control.sock');
  const file = await folder.write('agent.toml', `[control]\nsocket = "run/control.sock"\n${config}`);
  const env: Record<string, string> = {
    ...(await environmentOf(hub, device, folder)),
    ...(distant && { IOTHUB_DEVICE_CONNECTION_STRING: through(hub, network) }),
    IOTHUB_DEVICE_CONFIG: file,
    ...more,
  };
  const start = async () => {
    const agent = new ToolProcess('iothub-device', ['run'], { env, cwd: folder.path });
    await agent.says(online ? /info +online/ : /offline/);
    return agent;
  };
  const it: ControlledAgent = {
    hub,
    network,
    folder,
    env,
    socket,
    agent: await start(),
    async restart() {
      await it.agent[Symbol.asyncDispose]();
      it.agent = await start();
    },
    async curl(path, ...args) {
      const { stdout } = await promisify(execFile)(
        'curl',
        [
          '-sS',
          '--max-time',
          '20',
          '-w',
          '\n%{http_code}',
          '--unix-socket',
          socket,
          ...args,
          `http://agent${path}`,
        ],
        { maxBuffer: 64 * 1024 * 1024 },
      );
      const at = stdout.lastIndexOf('\n');
      const body = stdout.slice(0, at);
      return {
        status: Number(stdout.slice(at + 1)),
        body,
        get json() {
          return JSON.parse(body) as unknown;
        },
      };
    },
    tool: (args, input) =>
      runTool('iothub-device', args, { env, cwd: folder.path, ...(input === undefined ? {} : { input }) }),
    async [Symbol.asyncDispose]() {
      await it.agent[Symbol.asyncDispose]();
      await network[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
  return it;
}

function through(hub: Emulator, { port }: Proxy): string {
  return hub.deviceConnectionString(device).replace(hub.hostName, `localhost:${port}`);
}

export function jsonLines(text: string): Record<string, unknown>[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
