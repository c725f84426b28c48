/** Row T3 of the fault matrix with an installed agent, whose machine has no battery for its clock. */
import { execFileSync } from 'node:child_process';

import { expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from '../cli/tool.js';

const hasFaketime = process.env['IOTHUB_TESTS_MAY_SKIP'] === 'no' || canRun('faketime');

function canRun(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

test.skipIf(!hasFaketime)(
  'T3: an agent that starts in 1970 says so, takes telemetry, and is online soon after the clock is set',
  async () => {
    await using hub = await startHub();
    await using folder = await Folder.make();
    const preload = execFileSync('faketime', ['1970-01-01', 'printenv', 'LD_PRELOAD']).toString().trim();
    const time = await folder.write('time', '@1970-01-01 00:01:00\n');
    const env = {
      ...(await environmentOf(hub, device, folder)),
      XDG_RUNTIME_DIR: folder.path,
    };
    // Timers go by the monotonic clock, which stays as it is.
    const clock = {
      ...{ LD_PRELOAD: preload, FAKETIME_TIMESTAMP_FILE: time, FAKETIME_NO_CACHE: '1', TZ: 'UTC' },
      ...{ DONT_FAKE_MONOTONIC: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1' },
    };
    await using agent = new ToolProcess('iothub-device', ['run', '--exec', 'true', '-t', 'amqp'], {
      env: { ...env, ...clock },
    });
    await agent.says(/offline .*the clock of this machine says 1970-01-01T\S+Z: it is not set/);
    const sent = await runTool('iothub-device', ['send', '--data', 'early', '--queue'], { env });
    expect(sent).toMatchObject({ code: 0, err: '' });
    expect(hub.record.of('connected')).toHaveLength(0);

    const startedAt = performance.now();
    await folder.write('time', '+0\n');
    await agent.says(/info +online/, 35_000);
    await hub.waitFor((record) => record.of('telemetry').length === 1);
    expect(performance.now() - startedAt).toBeLessThan(35_000);
    agent.kill('SIGTERM');
    expect((await agent.ended()).code).toBe(0);
  },
  60_000,
);
