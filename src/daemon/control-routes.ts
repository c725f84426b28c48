import type { Clock } from '../clock.js';
import type { Inbox } from '../store/inbox.js';
import type { Store } from '../store/store.js';
import type { Routes } from './http-server.js';
import { inboxChangeRoute, inboxCommandRoute, inboxRoute } from './control-inbox.js';
import { drainRoute, reloadRoute, statusRoute } from './control-queries.js';
import { spoolChangeRoute, spoolMessagesRoute, spoolRoute } from './control-spool.js';
import { telemetryRoute, type TelemetryDoor } from './control-telemetry.js';
import type { Reloaded } from './reload.js';
import type { StatusBoard } from './status.js';

export interface ControlledAgent {
  board: Pick<StatusBoard, 'status'>;
  telemetry: TelemetryDoor;
  store: Pick<Store, 'spool' | 'stats'>;
  /** Where the store is. */
  directory: string;
  inbox: Inbox;
  clock: Clock;
  /** Absent: there is nothing to read again. */
  reload: (() => Promise<Reloaded>) | undefined;
}

/** All that the control socket offers. The first part of a path is its version: what is there is never taken away. */
export function controlRoutes(agent: ControlledAgent): Routes {
  const { board, telemetry, store, directory, inbox, clock, reload } = agent;
  const { spool } = store;
  return {
    '/v1/status': { GET: statusRoute(() => board.status()) },
    '/v1/telemetry': { POST: telemetryRoute(telemetry) },
    '/v1/spool': { GET: spoolRoute(spool, directory, () => store.stats()) },
    '/v1/spool/messages': { GET: spoolMessagesRoute(spool) },
    '/v1/spool/requeue': { POST: spoolChangeRoute(spool, 'requeue') },
    '/v1/spool/drop': { POST: spoolChangeRoute(spool, 'drop') },
    '/v1/inbox': { GET: inboxRoute(inbox) },
    '/v1/inbox/command': { GET: inboxCommandRoute(inbox) },
    '/v1/inbox/retry': { POST: inboxChangeRoute(inbox, 'retry') },
    '/v1/inbox/drop': { POST: inboxChangeRoute(inbox, 'drop') },
    '/v1/reload': { POST: reloadRoute(reload) },
    '/v1/drain': { POST: drainRoute(spool, clock) },
  };
}
