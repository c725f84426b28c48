import type { LinkKind } from './addresses.js';
import { openCbsRequests } from './cbs.js';
import { openCommandDeliveries, openCommandSending, openFeedback, openNotifications } from './commands.js';
import { openManagement, openPartition } from './event-links.js';
import type { FaultAction } from './faults.js';
import type { Hub } from './hub.js';
import type { LinkContext, Outlet, Transfer } from './links.js';
import { openMethodAnswers, openMethodCalls } from './methods.js';
import { openTelemetry } from './telemetry.js';
import { openTwinRequests, openTwinResponses } from './twin-links.js';

/** What happens on which link. A transfer comes with the fault that waits for it, if one does. */
export type Take = (transfer: Transfer, fault: FaultAction | undefined) => void;

/** Links that clients send on: each makes what takes their transfers. */
export const takers: Partial<Record<LinkKind, (context: LinkContext, hub: Hub) => Take>> = {
  cbs: openCbsRequests,
  telemetry: openTelemetry,
  twin: openTwinRequests,
  methods: openMethodAnswers,
  send: openCommandSending,
  management: openManagement,
};

/** Links that clients receive from: each sees to what goes out there. */
export const givers: Partial<Record<LinkKind, (outlet: Outlet, hub: Hub) => void>> = {
  commands: openCommandDeliveries,
  twin: openTwinResponses,
  methods: openMethodCalls,
  feedback: openFeedback,
  notifications: openNotifications,
  partition: openPartition,
};
