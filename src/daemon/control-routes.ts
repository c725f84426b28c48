import type { Clock } from '../clock.js';
import type { Inbox } from '../store/inbox.js';
import type { Spool } from '../store/spool.js';
import type { Routes } from './http-server.js';
import { inboxChangeRoute, inboxCommandRoute, inboxRoute } from './control-inbox.js';
import { drainRoute, reloadRoute, spoolRoute, statusRoute } from './control-queries.js';
import { telemetryRoute, type TelemetryDoor } from './control-telemetry.js';
import type { Reloaded } from './reload.js';
import type { StatusBoard } from './status.js';

export interface ControlledAgent {
  board: Pick<StatusBoard, 'status'>;
  telemetry: TelemetryDoor;
  spool: Spool;
  inbox: Inbox;
  clock: Clock;
  /** Absent: there is nothing to read again. */
  reload: (() => Promise<Reloaded>) | undefined;
}

/** All that the control socket offers. The first part of a path is its version: what is there is never taken away. */
export function controlRoutes(agent: ControlledAgent): Routes {
  const { board, telemetry, spool, inbox, clock, reload } = agent;
  return {
    '/v1/status': { GET: statusRoute(() => board.status()) },
    '/v1/telemetry': { POST: telemetryRoute(telemetry) },
    '/v1/spool': { GET: spoolRoute(spool) },
    '/v1/inbox': { GET: inboxRoute(inbox) },
    '/v1/inbox/command': { GET: inboxCommandRoute(inbox) },
    '/v1/inbox/retry': { POST: inboxChangeRoute(inbox, 'retry') },
    '/v1/inbox/drop': { POST: inboxChangeRoute(inbox, 'drop') },
    '/v1/reload': { POST: reloadRoute(reload) },
    '/v1/drain': { POST: drainRoute(spool, clock) },
  };
}
