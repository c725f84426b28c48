import { Hono } from 'hono';
import type { Context, MiddlewareHandler } from 'hono';
import { HTTPException } from 'hono/http-exception';

import { covers, verifyToken } from '../access.js';
import type { Right } from '../access.js';
import { pathOf } from '../addresses.js';
import type { Hub } from '../hub.js';
import { fileRoutes } from './files.js';
import { queryRoutes } from './query.js';
import { registryRoutes } from './registry.js';
import { twinRoutes } from './twins.js';

/** The service side over HTTPS, in the shapes that the SDKs read (api-version 2021-04-12 and its neighbours). */
export function restApp(hub: Hub): Hono {
  const app = new Hono({ getPath: rawPath });
  app.use(async (c, next) => {
    await next();
    // Node.js would write this machine's time, which may not be the hub's.
    c.header('date', new Date(hub.now()).toUTCString());
  });
  app.get('/health', (c) => c.json({ status: 'healthy' }));
  queryRoutes(app, hub);
  twinRoutes(app, hub);
  registryRoutes(app, hub);
  fileRoutes(app, hub);
  app.notFound((c) => failure(c, 404, 'ResourceNotFound', `there is nothing at ${c.req.path}`));
  app.onError((error, c) => {
    if (error instanceof RestError) return failure(c, error.status, error.code, error.message);
    if (error instanceof HTTPException) return failure(c, error.status, 'ArgumentInvalid', error.message);
    return failure(c, 500, 'ServerError', error.message);
  });
  return app;
}

/** What the SDKs turn into their errors: a status, and a code that stands at the start of the message. */
export class RestError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Asks for a token of a policy with one of these rights. */
export function requires(hub: Hub, ...rights: readonly Right[]): MiddlewareHandler {
  return async (c, next) => {
    const verdict = verifyToken(c.req.header('authorization') ?? '', hub);
    if (!verdict.ok) throw new RestError(401, 'IotHubUnauthorizedAccess', verdict.reason);
    const { holder, scope } = verdict.grant;
    const allowed = holder.kind === 'policy' && rights.some((right) => holder.rights.includes(right));
    if (!allowed || !covers(scope, pathOf(c.req.path))) {
      throw new RestError(401, 'IotHubUnauthorizedAccess', `the token does not allow ${rights.join(' or ')}`);
    }
    await next();
  };
}

/** The body as a JSON object; an ArgumentInvalid error when it is none. */
export async function jsonObject(c: Context): Promise<Record<string, unknown>> {
  const value = await jsonBody(c);
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new RestError(400, 'ArgumentInvalid', 'the body is not a JSON object');
}

export async function jsonBody(c: Context): Promise<unknown> {
  try {
    return (await c.req.json()) as unknown;
  } catch {
    throw new RestError(400, 'ArgumentInvalid', 'the body is not JSON');
  }
}

/** A path parameter, decoded once. */
export function parameter(c: Context, name: string): string {
  return c.req.param(name) ?? '';
}

/** Checks `If-Match`, which some SDKs quote, against an etag. Absent is fine when it may be. */
export function checkEtag(c: Context, etag: string): void {
  const wanted = c.req.header('if-match')?.replaceAll('"', '');
  if (wanted === undefined || wanted === '*' || wanted === etag) return;
  throw new RestError(412, 'PreconditionFailed', `the etag is "${etag}", not "${wanted}"`);
}

function failure(c: Context, status: number, code: string, message: string): Response {
  return c.json({ Message: `ErrorCode:${code};${message}`, ExceptionMessage: '' }, status as 400, {
    'iothub-errorcode': code,
  });
}

/** The path without the trailing slash that the Node SDK puts behind `/devices`. */
function rawPath(request: Request): string {
  const path = new URL(request.url).pathname;
  return path.length > 1 ? path.replace(/\/+$/, '') : path;
}
