/** What the items of the store's log are (`log/record.ts`). A number that was once used keeps its meaning. */
export const kinds = {
  /** What the spool has dropped, in one item. */
  account: 1,
  /** One command each (`ledger.ts`). */
  command: 2,
  /** Commands that were accepted and are not done (`inbox.ts`). */
  inbox: 3,
  /** Telemetry that the hub refused for good (`dead-letter.ts`). */
  deadLetter: 4,
  /** Telemetry of the first priority; the others follow (`spooled-message.ts`). */
  telemetry: 8,
} as const;

/** Priorities of telemetry: 0 is sent first, 7 last. */
export const priorities = [0, 1, 2, 3, 4, 5, 6, 7] as const;
export type Priority = (typeof priorities)[number];
