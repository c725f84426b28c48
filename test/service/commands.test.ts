import { expect, test } from 'vitest';

import { systemClock } from '../../src/clock.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { parseServiceConnectionString } from '../../src/identity/connection-string.js';
import { serviceTokens } from '../../src/identity/token.js';
import { silentLog } from '../../src/log.js';
import { openServiceClient, type ServiceClient } from '../../src/service/client.js';
import { openCommandSender, type CommandToSend } from '../../src/service/commands.js';
import { openFeedbackWait } from '../../src/service/feedback.js';
import { device, endpointOf, failure, never, openSession, startHub } from '../amqp/hub.js';

function openClient(hub: Emulator, connectionString = hub.serviceConnectionString()): Promise<ServiceClient> {
  const makeToken = serviceTokens(parseServiceConnectionString(connectionString));
  return openServiceClient(
    { endpoint: endpointOf(hub), makeToken, clock: systemClock, log: silentLog },
    never,
  );
}

function command(fields: Partial<CommandToSend> = {}): CommandToSend {
  return {
    to: { deviceId: device },
    messageId: 'c1',
    ack: 'full',
    properties: {},
    body: Buffer.from('go'),
    ...fields,
  };
}

test('a command reaches its device with its properties, and the feedback says what the device decided', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  session.commands.onCommand(({ command, settle }) => {
    settle(command.messageId === 'bad' ? { outcome: 'reject', reason: 'no' } : { outcome: 'accept' });
  });
  session.commands.grant(10);

  await using client = await openClient(hub);
  const feedback = await openFeedbackWait(client, never);
  const sender = await openCommandSender(client, never);
  for (const messageId of ['good', 'bad']) {
    feedback.expect(messageId);
    expect(await sender.send(command({ messageId, properties: { room: 'kitchen' } }), never)).toEqual({
      outcome: 'accepted',
    });
  }
  expect(await feedback.next('good', AbortSignal.timeout(5000))).toMatchObject({
    originalMessageId: 'good',
    statusCode: 'Success',
    deviceId: device,
    deviceGenerationId: expect.any(String) as string,
    enqueuedTimeUtc: expect.stringMatching(/^\d{4}-\d\d-\d\dT/) as string,
  });
  expect(await feedback.next('bad', AbortSignal.timeout(5000))).toMatchObject({ statusCode: 'Rejected' });
  expect(hub.record.of('delivery')[0]).toMatchObject({ messageId: 'good', properties: { room: 'kitchen' } });
});

test('a command for a device that does not exist is rejected as not found', async () => {
  await using hub = await startHub();
  await using client = await openClient(hub);
  const sender = await openCommandSender(client, never);
  expect(await sender.send(command({ to: { deviceId: 'nobody' } }), never)).toMatchObject({
    outcome: 'rejected',
    condition: 'amqp:not-found',
  });
});

test('the fifty-first command that waits for a device is rejected', async () => {
  await using hub = await startHub();
  await using client = await openClient(hub);
  const sender = await openCommandSender(client, never);
  const outcomes = [];
  for (let n = 0; n < 51; n++)
    outcomes.push(await sender.send(command({ messageId: `c${String(n)}` }), never));
  expect(outcomes.slice(0, 50).every(({ outcome }) => outcome === 'accepted')).toBe(true);
  expect(outcomes[50]).toMatchObject({ outcome: 'rejected', condition: 'amqp:resource-limit-exceeded' });
});

test('a policy without the right to send is refused', async () => {
  await using hub = await startHub();
  await using client = await openClient(hub, hub.serviceConnectionString('registryRead'));
  expect(await failure(openCommandSender(client, never))).toMatchObject({
    code: 'refused',
    condition: 'amqp:unauthorized-access',
  });
});

test("another sender's feedback is given back, and reaches whoever waits for it", async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  session.commands.onCommand(({ settle }) => settle({ outcome: 'accept' }));
  session.commands.grant(10);
  await using mine = await openClient(hub);
  await using theirs = await openClient(hub);
  const waits = { mine: await openFeedbackWait(mine, never), theirs: await openFeedbackWait(theirs, never) };
  waits.theirs.expect('theirs');
  hub.sendCommand({ deviceId: device, body: 'go', messageId: 'theirs', ack: 'full' });
  expect(await waits.theirs.next('theirs', AbortSignal.timeout(20_000))).toMatchObject({
    statusCode: 'Success',
  });
});

test.each([
  ['the hub drops the connection', { act: 'drop' }],
  ['the hub detaches the sender', { act: 'detach', condition: 'amqp:link:detach-forced' }],
  ['the hub ends the session', { act: 'end', condition: 'amqp:internal-error' }],
] as const)('a send that has no answer when %s is rejected at once', async (_title, act) => {
  await using hub = await startHub();
  await using client = await openClient(hub);
  const sender = await openCommandSender(client, never);
  hub.faults.add({ at: 'transfer', link: 'send', do: { act: 'say-nothing' } });
  const sending = failure(sender.send(command(), never));
  await hub.waitFor((record) => record.of('command').length === 1);
  hub.faults.now(act, act.act === 'drop' ? {} : { link: 'send' });
  expect(await sending).toMatchObject({ name: 'AgentError' });
});
