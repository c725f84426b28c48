import type { Clock } from '../clock.js';
import type { Inbox } from '../store/inbox.js';
import type { Spool } from '../store/spool.js';
import type { Routes } from './control.js';
import { drainRoute, inboxRoute, spoolRoute, statusRoute } from './control-queries.js';
import { telemetryRoute, type TelemetryDoor } from './control-telemetry.js';
import type { StatusBoard } from './status.js';

export interface ControlledAgent {
  board: Pick<StatusBoard, 'status'>;
  telemetry: TelemetryDoor;
  spool: Spool;
  inbox: Inbox;
  clock: Clock;
}

/** All that the control socket offers. The first part of a path is its version: what is there is never taken away. */
export function controlRoutes({ board, telemetry, spool, inbox, clock }: ControlledAgent): Routes {
  return {
    '/v1/status': { GET: statusRoute(() => board.status()) },
    '/v1/telemetry': { POST: telemetryRoute(telemetry) },
    '/v1/spool': { GET: spoolRoute(spool) },
    '/v1/inbox': { GET: inboxRoute(inbox) },
    '/v1/drain': { POST: drainRoute(spool, clock) },
  };
}
