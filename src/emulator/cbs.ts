import { verifyToken } from './access.js';
import type { FaultAction } from './faults.js';
import type { Hub } from './hub.js';
import type { LinkContext, Transfer } from './links.js';
import { bodyBytes, text } from './message.js';
import type { WireMessage } from './message.js';
import { int } from './wire.js';

/**
 * Claims-based security: a client sends a token to `$cbs` as a message and gets a status back on its `$cbs` receiver.
 * SDKs differ in nearly every field of the request, so only what matters is read: the operation, the name and the token.
 */
export function openCbsRequests(
  context: LinkContext,
  hub: Hub,
): (transfer: Transfer, fault?: FaultAction) => void {
  return (transfer, fault) => {
    const request = transfer.content as WireMessage;
    transfer.settle({ outcome: 'accepted' });
    if (fault?.act === 'say-nothing') return;
    const answer = fault?.act === 'refuse' ? refusedBy(fault) : putToken(request, context, hub);
    const { connection, session } = context;
    const audience = text(request.application_properties?.['name']) ?? '';
    const reason = answer.status === 200 ? {} : { reason: answer.description };
    hub.record.add({
      event: 'token',
      connection: connection.number,
      session,
      audience,
      status: answer.status,
      ...reason,
    });
    const respond = (): void => {
      connection.siblingOf(context)?.post(response(request, answer));
    };
    if (fault?.act === 'delay') hub.clock.at(hub.now() + fault.ms, respond);
    // The hub's disposition of the request goes first, the response after it.
    else setImmediate(respond);
  };
}

interface Answer {
  status: number;
  description: string;
}

function putToken(request: WireMessage, context: LinkContext, hub: Hub): Answer {
  const fields = request.application_properties ?? {};
  const operation = text(fields['operation']);
  if (operation?.toLowerCase() !== 'put-token')
    return { status: 400, description: 'operation must be put-token' };
  const type = text(fields['type']);
  if (type === undefined || !/:sastoken$/i.test(type)) {
    return { status: 400, description: `token type "${type ?? ''}" is not supported` };
  }
  if ((text(fields['name']) ?? '') === '') return { status: 400, description: 'name is missing' };
  const token = bodyBytes(request.body).toString('utf8');
  const verdict = verifyToken(token, hub);
  if (!verdict.ok) return { status: 401, description: verdict.reason };
  const { holder } = verdict.grant;
  if (holder.kind === 'device' && holder.device.status === 'disabled') {
    return { status: 401, description: `device ${holder.device.deviceId} is disabled` };
  }
  context.connection.allow(verdict.grant);
  return { status: 200, description: 'OK' };
}

function refusedBy(fault: { status?: number; description?: string }): Answer {
  return { status: fault.status ?? 401, description: fault.description ?? 'a fault was asked for' };
}

/** `status-code` must be an AMQP int, and the correlation id of the type that the message id had. */
function response(request: WireMessage, { status, description }: Answer): object {
  return {
    correlation_id: request.message_id,
    application_properties: { 'status-code': int(status), 'status-description': description },
    body: null,
  };
}
