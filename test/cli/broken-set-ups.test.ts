import { describe, expect, test } from 'vitest';

import { brokenSetUps, setUp } from './broken-set-ups.js';
import { runTool, ToolProcess } from './tool.js';

const key = /SharedAccessKey|sig=/;

describe.concurrent('send: the cause in one line, the cure below it, and its exit code', () => {
  test.each(brokenSetUps)('$what: exit $send.exits', async ({ breaks, send: { says, exits } }) => {
    await using it = await setUp();
    const env = await breaks(it);
    const { code, err } = await runTool('iothub-device', ['send', '--data', 'x', '--timeout', '3s'], { env });
    if (says === undefined) expect(err).toBe('');
    else {
      expect(err).toMatch(says);
      // One line, and the cure: nothing that only the system or OpenSSL would say.
      expect(err).toMatch(/^error: .*\n(?: {2}.*\n){1,2}$/);
    }
    expect(code).toBe(exits);
    expect(err).not.toMatch(key);
  });
});

describe.concurrent('run: the same in its log, and it goes on trying', () => {
  // How long is waited for one who says nothing is a matter of its own (test/faults/network).
  const refused = brokenSetUps.filter(({ send: { says } }) => says && !says.source.includes('within'));
  test.each(refused)('$what', async ({ breaks, send: { says } }) => {
    await using it = await setUp();
    const env = { ...(await breaks(it)), IOTHUB_DEVICE_LOG_FORMAT: 'json' };
    await using agent = new ToolProcess('iothub-device', ['run', '--exec', '/bin/true'], { env });
    await agent.says(/"msg":"offline"/);
    const { error, hint } = JSON.parse(/.*"msg":"offline".*/.exec(agent.err)![0]) as Record<string, string>;
    expect(`${error!}\n  ${hint!}`).toMatch(says!);
    expect(agent.err).not.toMatch(key);
    expect(agent.exited).toBe(false);
  });
});
