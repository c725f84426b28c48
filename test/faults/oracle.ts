import type { HubRecord } from '../../src/emulator/emulator.js';

/**
 * Judges what became of messages and commands by what the hub has recorded, and by what was acknowledged to the
 * caller. It never asks the agent.
 */
export interface TelemetryVerdict {
  /** Acknowledged, and never accepted by the hub. */
  lost: string[];
  /** Accepted more than once; each repeat counts. */
  duplicates: number;
  /** Repeats that no lost link explains: in one life of a link, or more of one life than the window allows. */
  unexplained: string[];
  /** Messages that the hub accepted for the first time after one that had been given to the agent later. */
  reordered: string[];
  /** Of these, those that were further behind than the window. */
  farBehind: string[];
  /** Lives of the telemetry link that ended with something accepted on them. */
  lostLinks: number;
}

/** `acknowledged` in the order in which the agent was given them. */
export function judgeTelemetry(
  record: HubRecord,
  { deviceId, acknowledged, window }: { deviceId: string; acknowledged: readonly string[]; window: number },
): TelemetryVerdict {
  const lives = livesOfTelemetryLinks(record, deviceId);
  const place = new Map(acknowledged.map((id, index) => [id, index]));
  const seenIn = new Map<string, number>();
  const repeatsOf = lives.map(() => 0);
  const verdict: TelemetryVerdict = {
    lost: [],
    duplicates: 0,
    unexplained: [],
    reordered: [],
    farBehind: [],
    lostLinks: Math.max(0, lives.filter((life) => life.length > 0).length - 1),
  };
  let newest = -1;
  lives.forEach((life, number) => {
    for (const id of life) {
      const before = seenIn.get(id);
      seenIn.set(id, number);
      if (before !== undefined) {
        verdict.duplicates++;
        if (before === number || ++repeatsOf[before]! > window) verdict.unexplained.push(id);
        continue;
      }
      const at = place.get(id);
      if (at === undefined) continue;
      if (at < newest) {
        verdict.reordered.push(id);
        if (newest - at > window) verdict.farBehind.push(id);
      }
      newest = Math.max(newest, at);
    }
  });
  verdict.lost = acknowledged.filter((id) => !seenIn.has(id));
  return verdict;
}

/** What the hub accepted, message ids in order, by the life of the telemetry link that they came over. */
function livesOfTelemetryLinks(record: HubRecord, deviceId: string): string[][] {
  const lives: string[][] = [];
  /** Of each connection, the life that its transfers belong to now. */
  const current = new Map<number, string[]>();
  for (const entry of record.entries) {
    if (entry.event === 'attached' && entry.link === 'telemetry' && entry.deviceId === deviceId) {
      const life: string[] = [];
      lives.push(life);
      current.set(entry.connection, life);
    } else if (entry.event === 'telemetry' && entry.deviceId === deviceId) {
      if (entry.outcome.outcome !== 'accepted') continue;
      current.get(entry.connection)?.push(entry.messageId ?? '');
    }
  }
  return lives;
}

/** One run of a handler, as the handler saw it. */
export interface Run {
  messageId: string;
  /** By the machine's monotonic clock. */
  startedAt: number;
  endedAt?: number;
  decided?: 'accept' | 'reject' | 'release';
}

export interface CommandVerdict {
  /** Sent, and never completed or dead-lettered by a reject. */
  unfinished: string[];
  /** Ran again although a run of it had ended with a final outcome, and there was time to record that. */
  rerun: string[];
  /** Ran again because a crash cut its run short, or came before its outcome could be recorded. */
  unknown: number;
  /** Rejected because the agent died three times while its handler ran. */
  givenUp: number;
  /** The hub was told something else than the handler decided last. */
  misreported: string[];
  /** Never ran, and the hub got an outcome all the same. */
  neverRan: string[];
}

export interface CommandFacts {
  sent: readonly string[];
  runs: readonly Run[];
  /** When the agent died without warning, by the clock of `runs`. */
  crashes?: readonly number[];
  /**
   * So long before a crash a run may have ended and not be recorded, and so long after it one may begin that the dead
   * agent had started, milliseconds. Default 300.
   */
  slackMs?: number;
}

export function judgeCommands(
  record: HubRecord,
  { sent, runs, crashes = [], slackMs = 300 }: CommandFacts,
): CommandVerdict {
  const verdict: CommandVerdict = {
    unfinished: [],
    rerun: [],
    unknown: 0,
    givenUp: 0,
    misreported: [],
    neverRan: [],
  };
  const told = finalOutcomes(record);
  const runsOf = byMessage(runs);
  for (const id of sent) {
    const outcome = told.get(id);
    const its = runsOf.get(id) ?? [];
    if (outcome === undefined) verdict.unfinished.push(id);
    const last = its.findLast(({ decided }) => decided !== undefined && decided !== 'release');
    // It may have died each time before its handler came to note anything.
    if (outcome === 'given up') verdict.givenUp++;
    else if (outcome !== undefined && its.length === 0) verdict.neverRan.push(id);
    else if (outcome !== undefined && last && outcome !== outcomeName[last.decided ?? 'release']) {
      verdict.misreported.push(id);
    }
    its.slice(1).forEach((run, index) => {
      const before = its[index]!;
      if (before.decided === 'release') return;
      const from = before.startedAt - slackMs;
      const until = Math.min((before.endedAt ?? Infinity) + slackMs, run.startedAt);
      const explains = (at: number): boolean => from <= at && at <= until;
      if (crashes.some(explains)) verdict.unknown++;
      else verdict.rerun.push(id);
    });
  }
  return verdict;
}

function byMessage(runs: readonly Run[]): Map<string, Run[]> {
  const grouped = new Map<string, Run[]>();
  for (const run of runs) {
    const its = grouped.get(run.messageId);
    if (its) its.push(run);
    else grouped.set(run.messageId, [run]);
  }
  return grouped;
}

const outcomeName = { accept: 'accepted', reject: 'rejected', release: 'released' } as const;

/** What the hub made of each command in the end, by message id. */
function finalOutcomes(record: HubRecord): Map<string, 'accepted' | 'rejected' | 'given up'> {
  const final = new Map<string, 'accepted' | 'rejected' | 'given up'>();
  for (const { messageId = '', outcome, lockLost } of record.of('outcome')) {
    if (lockLost) continue;
    if (outcome.outcome === 'accepted') final.set(messageId, 'accepted');
    else if (outcome.outcome === 'rejected') {
      final.set(messageId, crashed.test(outcome.description ?? '') ? 'given up' : 'rejected');
    }
  }
  return final;
}

/** How the agent says that it gave a command up. */
const crashed = /^failed \d+ times: the agent ended/;
