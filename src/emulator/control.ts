import { getRequestListener } from '@hono/node-server';
import { Hono } from 'hono';
import type { Context } from 'hono';
import * as v from 'valibot';

import { AgentError } from '../errors.js';
import type { Emulator } from './emulator.js';
import { isEnding } from './faults.js';
import type { Ending, Fault } from './faults.js';
import { listenHttp } from './listener.js';
import type { Listener, PortChoice } from './listener.js';

/** Serves an emulator's health and control on a port of its own; `environment` gives its connection strings. */
export async function serveControl(
  emulator: Emulator,
  port: PortChoice,
  environment: (url: string) => string,
): Promise<Listener> {
  const answer = getRequestListener(controlApp(emulator, () => environment(url)).fetch);
  const listener = await listenHttp(
    { port, host: '127.0.0.1' },
    (request, response) => void answer(request, response),
  );
  const url = `http://127.0.0.1:${listener.port}`;
  return listener;
}

/**
 * The emulator's own API, plain HTTP on loopback: `GET /health` for who waits for it, and what `iothub-emulator ctl`
 * asks for. It wants JSON and a loopback host name, so that no page in a browser can talk to it.
 */
function controlApp(emulator: Emulator, environment: () => string): Hono {
  const app = new Hono();
  app.use(async (c, next) => {
    const host = (c.req.header('host') ?? '').replace(/:\d+$/, '');
    if (!['localhost', '[::1]'].includes(host) && !host.startsWith('127.')) return c.text('not here', 403);
    if (c.req.method !== 'GET' && c.req.header('content-type') !== 'application/json') {
      return c.json({ error: 'content-type must be application/json' }, 415);
    }
    await next();
    return undefined;
  });
  app.get('/health', (c) => c.json({ status: 'healthy' }));
  app.get('/v1/env', (c) => c.text(environment()));
  app.get('/v1/connections', (c) => c.json(emulator.connections));
  app.get('/v1/devices', (c) => c.json(emulator.devices.map(summary)));
  app.get('/v1/dead-letters', (c) => c.json(emulator.record.of('dead-letter')));
  app.get('/v1/faults', (c) => c.json(emulator.faults.active));
  app.post('/v1/faults', async (c) => {
    const fault = await body(c, faultSchema);
    emulator.faults.add(fault as Fault);
    return c.json(fault, 201);
  });
  app.delete('/v1/faults', (c) => {
    emulator.faults.clear();
    return c.body(null, 204);
  });
  app.post('/v1/endings', async (c) => {
    const { filter, do: ending } = await body(c, endingSchema);
    return c.json({ hit: emulator.faults.now(ending as Ending, filter) });
  });
  app.post('/v1/clock', async (c) => {
    const { jumpMs } = await body(c, v.strictObject({ jumpMs: v.number() }));
    emulator.jumpClock(jumpMs);
    return c.json({ now: new Date(emulator.now()).toISOString() });
  });
  app.post('/v1/tokens/expire', async (c) => {
    const { deviceId } = await body(c, v.strictObject({ deviceId: v.optional(v.string()) }));
    return c.json({ expired: emulator.expireTokens(deviceId) });
  });
  app.post('/v1/devices', async (c) => {
    const { deviceId } = await body(c, v.strictObject({ deviceId: v.string() }));
    return c.json(summary(emulator.addDevice(deviceId)), 201);
  });
  app.patch('/v1/devices/:id', async (c) => {
    const { status } = await body(c, v.strictObject({ status: v.picklist(['enabled', 'disabled']) }));
    emulator.setDeviceStatus(c.req.param('id'), status);
    return c.json(summary(emulator.device(c.req.param('id'))));
  });
  app.delete('/v1/devices/:id', (c) => {
    return emulator.removeDevice(c.req.param('id'))
      ? c.body(null, 204)
      : c.json({ error: 'no such device' }, 404);
  });
  app.onError((error, c) => {
    if (!(error instanceof AgentError)) return c.json({ error: error.message }, 500);
    return c.json({ error: error.message }, error.code === 'no-device' ? 404 : 400);
  });
  return app;
}

function summary({ deviceId, moduleId, status, owner, mailbox }: Emulator['devices'][number]): object {
  return { deviceId, moduleId, status, connected: owner !== undefined, commands: mailbox.depth };
}

async function body<Schema extends v.GenericSchema>(
  c: Context,
  schema: Schema,
): Promise<v.InferOutput<Schema>> {
  let value: unknown;
  try {
    value = await c.req.json();
  } catch (cause) {
    throw new AgentError('data', 'the body is not JSON', { cause });
  }
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new AgentError('data', `${v.getDotPath(issue) ?? 'body'}: ${issue.message}`);
}

const links = [
  'cbs',
  'telemetry',
  'commands',
  'inputs',
  'methods',
  'twin',
  'send',
  'feedback',
  'notifications',
  'partition',
  'management',
] as const;
const filterFields = {
  link: v.optional(v.picklist(links)),
  direction: v.optional(v.picklist(['in', 'out'])),
  deviceId: v.optional(v.string()),
  connection: v.optional(v.number()),
};
const conditionFields = { condition: v.optional(v.string()), description: v.optional(v.string()) };
const actionSchema = v.variant('act', [
  v.strictObject({ act: v.literal('say-nothing') }),
  v.strictObject({ act: v.literal('delay'), ms: v.number() }),
  v.strictObject({ act: v.literal('refuse'), status: v.optional(v.number()), ...conditionFields }),
  v.strictObject({
    act: v.literal('answer'),
    outcome: v.picklist(['accepted', 'rejected', 'released', 'modified']),
    ...conditionFields,
  }),
  v.strictObject({ act: v.literal('garble'), hex: v.pipe(v.string(), v.regex(/^([0-9a-f]{2})*$/i)) }),
  v.strictObject({ act: v.picklist(['withhold', 'trickle', 'drop', 'freeze']) }),
  v.strictObject({ act: v.picklist(['detach', 'end', 'close']), ...conditionFields }),
]);
const faultSchema = v.strictObject({
  ...filterFields,
  at: v.picklist(['connect', 'open', 'put-token', 'attach', 'credit', 'transfer', 'disposition', 'delivery']),
  do: actionSchema,
  times: v.optional(v.union([v.number(), v.literal('always')])),
  after: v.optional(v.number()),
});
const endingSchema = v.strictObject({
  filter: v.optional(v.strictObject(filterFields), {}),
  do: v.pipe(
    actionSchema,
    v.check((action) => isEnding(action as Ending), 'is not something that can be done now'),
  ),
});
