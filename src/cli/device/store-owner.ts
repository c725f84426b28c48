import type { Log } from '../../log.js';
import { StoreInUse } from '../../store/log/owner.js';
import type { Store } from '../../store/store.js';
import type { Io } from '../io.js';
import { agentOfProcess, meantBy, runningAgent } from './agent-client.js';
import { openSpool, placeOf, type SpoolFlags } from './spool-options.js';

/** Who has the store of a device: an agent, behind its control socket, or from now on we ourselves. */
export type StoreOwner = { socket: string } | { store: Store; directory: string };

/**
 * Finds the agent that has the store that the flags mean, or opens it where none runs. Errors: `try-again` when
 * something else has the store, or an agent that cannot be spoken to.
 */
export async function storeOwner(io: Io, flags: SpoolFlags, log: Log): Promise<StoreOwner> {
  const meant = await meantBy(io, flags);
  // A directory that is named says nothing about whose it is.
  const agent = flags.directory === undefined ? await runningAgent(meant, log) : undefined;
  if (agent !== undefined) return agent;
  const place = await placeOf(io, flags, meant.config, meant.whoItIs);
  try {
    return { store: await openSpool(place, { log, whileInUse }), directory: place.directory };
  } catch (error) {
    const owner = error instanceof StoreInUse ? await agentOfProcess(io, meant, error.pid, log) : undefined;
    if (owner === undefined) throw error;
    return owner;
  }
}

const whileInUse = 'if it is an agent, let it have a control socket ([control] socket), or stop it first';
