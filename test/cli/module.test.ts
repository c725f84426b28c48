/** Modules of a device, and devices behind an IoT Edge gateway, as the tools and the agent see them. */
import { describe, expect, test } from 'vitest';

import { startEmulator } from '../../src/emulator/emulator.js';
import { Folder, runTool, ToolProcess } from './tool.js';

const hubName = 'myhub.azure-devices.net';
const ids = { deviceId: 'dev1', moduleId: 'sensor' };

/** A hub with a device that has a module, under a name that cannot be looked up; what stands for it is a gateway. */
async function setUp() {
  const hub = await startEmulator({ devices: ['dev1'], moreHostNames: [hubName], httpsPort: 0 });
  hub.addDevice(ids);
  const folder = await Folder.make();
  const env = {
    IOTHUB_DEVICE_CA: await folder.write('ca.pem', hub.ca),
    IOTHUB_SERVICE_CA: await folder.write('ca2.pem', hub.ca),
    IOTHUB_SERVICE_CONNECTION_STRING: hub.serviceConnectionString(),
    IOTHUB_SERVICE_HTTPS_PORT: String(hub.httpsPort),
    IOTHUB_DEVICE_HTTPS_PORT: String(hub.httpsPort),
    XDG_STATE_HOME: folder.path,
    XDG_RUNTIME_DIR: folder.path,
  };
  const asHub = (connectionString: string) => connectionString.replace(hub.hostName, hubName);
  return {
    ...{ hub, folder, env, asHub },
    device: (args: readonly string[], more: Record<string, string>) =>
      runTool('iothub-device', args, { env: { ...env, ...more } }),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

test('a module has a key, a token and links of its own; the agent serves its methods and its twin', async () => {
  await using it = await setUp();
  const identity = { IOTHUB_DEVICE_CONNECTION_STRING: it.hub.deviceConnectionString('dev1', 'sensor') };
  expect(await it.device(['send', '--data', '1', '--output-name', 'alerts'], identity)).toMatchObject({
    code: 0,
  });
  expect(it.hub.record.of('telemetry')).toMatchObject([ids]);
  expect(it.hub.record.of('token').map(({ audience }) => decodeURIComponent(audience))).toEqual([
    `${it.hub.hostName}/devices/dev1/modules/sensor`,
  ]);

  const config = await it.folder.write(
    'agent.toml',
    `[[handlers]]\nname = "m"\non = "method"\nexec = ["./answer"]\n[[handlers]]\nname = "t"\non = "twin"\nexec = ["./answer"]\n`,
  );
  await it.folder.script('answer', `echo "{\\"by\\":\\"$IOTHUB_DEVICE_ID/$IOTHUB_MODULE_ID\\"}"`);
  await using agent = new ToolProcess('iothub-device', ['run', '--config', config], {
    env: { ...it.env, ...identity },
  });
  await agent.says(/online/);
  await it.hub.waitFor((record) => record.of('attached').some(({ link }) => link === 'methods'));
  const call = await runTool(
    'iothub-service',
    ['method', 'dev1', 'who', '--module', 'sensor', '-o', 'json'],
    {
      env: it.env,
    },
  );
  expect(call, call.err).toMatchObject({ code: 0 });
  expect(call.out).toContain('"by":"dev1/sensor"');
  const status = await it.device(['status', '-o', 'json'], identity);
  expect(JSON.parse(status.out)).toMatchObject({ ...ids, state: 'online' });
  agent.kill('SIGTERM');
  expect((await agent.ended()).code).toBe(0);
});

describe('a gateway', () => {
  test.each(['amqp', 'amqp-ws'])(
    'is who is connected to, over %s; the token is for the hub',
    async (transport) => {
      await using it = await setUp();
      const connectionString = it.asHub(it.hub.deviceConnectionString('dev1'));
      await using receive = new ToolProcess('iothub-device', ['receive', '-t', transport, '-n', '1'], {
        env: {
          ...it.env,
          IOTHUB_DEVICE_CONNECTION_STRING: `${connectionString};GatewayHostName=localhost:${String(it.hub.port)}`,
        },
      });
      await it.hub.waitFor(() => it.hub.connections[0]?.sessions.length === 2);
      expect(it.hub.connections).toMatchObject([
        {
          transport: transport === 'amqp' ? 'tls' : 'websocket',
          serverName: 'localhost',
          hostName: 'localhost',
        },
      ]);
      expect(it.hub.record.of('token').map(({ audience }) => decodeURIComponent(audience))).toEqual([
        `${hubName}/devices/dev1`,
      ]);
      it.hub.sendCommand({ deviceId: 'dev1', body: 'hello' });
      expect((await receive.ended()).code).toBe(0);
    },
  );

  test('can be said by a flag and in the configuration; without one the hub is looked up', async () => {
    await using it = await setUp();
    const identity = {
      IOTHUB_DEVICE_CONNECTION_STRING: it.asHub(it.hub.deviceConnectionString('dev1', 'sensor')),
    };
    const gateway = `localhost:${String(it.hub.port)}`;
    const config = await it.folder.write('agent.toml', `[hub]\ngateway_host = "${gateway}"\n`);
    expect(await it.device(['send', '--data', '1', '--gateway-host', gateway], identity)).toMatchObject({
      code: 0,
    });
    expect(await it.device(['send', '--data', '2', '--config', config], identity)).toMatchObject({ code: 0 });
    expect(it.hub.record.of('telemetry')).toMatchObject([ids, ids]);
    const bad = await it.device(['send', '--data', '3', '--gateway-host', 'amqps://gw'], identity);
    expect(bad.code).toBe(78);
    expect(bad.err).toContain('the gateway is not a host name: "amqps://gw"');
  });
});
