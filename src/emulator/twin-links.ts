import type { Device } from './device.js';
import type { FaultAction } from './faults.js';
import type { Hub } from './hub.js';
import type { LinkContext, Outlet, Transfer } from './links.js';
import { bodyBytes, text } from './message.js';
import type { WireMessage } from './message.js';
import { answer } from './telemetry.js';
import type { Json } from './twin.js';
import { dataSection, int, long } from './wire.js';

/**
 * A twin over AMQP: requests come on one link, responses and notifications go out on its sibling, which carries the
 * same channel correlation id. The annotation `operation` says what is asked for.
 */
export function openTwinRequests(
  context: LinkContext,
  hub: Hub,
): (transfer: Transfer, fault?: FaultAction) => void {
  const { device, connection } = context;
  return (transfer, fault) => {
    answer(transfer, { outcome: 'accepted' }, fault, hub);
    if (device === undefined || fault?.act === 'say-nothing') return;
    const request = transfer.content as WireMessage;
    const operation = text(request.message_annotations?.['operation'])?.toUpperCase() ?? '';
    const responses = connection.siblingOf(context);
    const response =
      fault?.act === 'refuse' ? refusedBy(fault) : respondTo(operation, request, device, responses, hub);
    const { deviceId, moduleId } = device;
    const { status, version } = response;
    hub.record.add({ event: 'twin', deviceId, moduleId, operation, status, version });
    setImmediate(() => responses?.post(responseMessage(request, response)));
  };
}

/** Watching ends with the link. */
export function openTwinResponses(outlet: Outlet): void {
  outlet.onClosed = () => {
    watches.get(outlet)?.();
    watches.delete(outlet);
  };
}

/** Per response link, what ends its watching of desired properties. */
const watches = new WeakMap<Outlet, () => void>();

interface Response {
  status: number;
  version?: number;
  body?: Json;
}

function respondTo(
  operation: string,
  request: WireMessage,
  { twin }: Device,
  responses: Outlet | undefined,
  hub: Hub,
): Response {
  const resource = text(request.message_annotations?.['resource'])?.toLowerCase() ?? '';
  const onDesired = resource === '/notifications/twin/properties/desired';
  if (operation === 'GET') return { status: 200, body: twin.forDevice() };
  if (operation === 'PATCH' && resource === '/properties/reported') {
    const patch = parsedJson(bodyBytes(request.body));
    const result = twin.patchReported(patch, hub.now());
    if (result.ok) return { status: 200, version: result.version };
    return { status: result.status, body: { errorCode: 400_004, message: result.message } };
  }
  if (operation === 'PUT' && onDesired) {
    if (responses && !watches.has(responses)) {
      const stop = twin.watch((patch) => {
        responses.post({ body: jsonSection(patch) });
      });
      watches.set(responses, stop);
    }
    return { status: 200 };
  }
  if (operation === 'DELETE' && onDesired) {
    if (responses) {
      watches.get(responses)?.();
      watches.delete(responses);
    }
    return { status: 200 };
  }
  return {
    status: 400,
    body: { errorCode: 400_003, message: `${operation} ${resource} is no twin operation` },
  };
}

function refusedBy({
  status = 500,
  description = 'a fault was asked for',
}: {
  status?: number;
  description?: string;
}): Response {
  return { status, body: { errorCode: status * 1000, message: description } };
}

/** `status` is an int and `version` a long, or the C SDK does not read them; a body is JSON or absent. */
function responseMessage(request: WireMessage, { status, version, body }: Response): object {
  return {
    correlation_id: request.correlation_id,
    message_annotations: { status: int(status), ...(version !== undefined && { version: long(version) }) },
    body: body === undefined ? dataSection(Buffer.alloc(0)) : jsonSection(body),
  };
}

function jsonSection(value: Json): unknown {
  return dataSection(Buffer.from(JSON.stringify(value)));
}

function parsedJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}
