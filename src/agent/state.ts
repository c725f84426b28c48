import type { AgentError } from '../errors.js';

/**
 * Where the agent is. Times are milliseconds since the epoch.
 *
 *     connecting ──▶ online ──▶ waiting ──▶ connecting …
 *         └────────────────────▶┘
 *     online ──▶ connecting, when only links were lost
 *     any of them ──▶ draining ──▶ stopped
 */
export type AgentState =
  | { state: 'connecting'; since: number; attempt: number }
  | { state: 'online'; since: number }
  | { state: 'waiting'; since: number; until: number; attempt: number; error: AgentError }
  | { state: 'draining'; since: number }
  | { state: 'stopped'; since: number };

const moves: Record<AgentState['state'], readonly AgentState['state'][]> = {
  connecting: ['online', 'waiting', 'draining', 'stopped'],
  // Straight back: only the links were lost, and they are attached anew on the same connection.
  online: ['connecting', 'waiting', 'draining', 'stopped'],
  waiting: ['connecting', 'draining', 'stopped'],
  draining: ['stopped'],
  stopped: [],
};

/** The one value that says where the agent is, and who is told when it moves. */
export class Lifecycle {
  #current: AgentState | undefined;
  readonly #onMove: (state: AgentState) => void;

  constructor(onMove: (state: AgentState) => void) {
    this.#onMove = onMove;
  }

  /** Throws when the move is not in the table: that is a bug of ours, and better seen than lived with. */
  move(next: AgentState): void {
    const from = this.#current?.state;
    if (from === undefined ? next.state !== 'connecting' : !moves[from].includes(next.state)) {
      throw new Error(`the agent cannot go from ${from ?? 'nowhere'} to ${next.state}`);
    }
    this.#current = next;
    this.#onMove(next);
  }
}
