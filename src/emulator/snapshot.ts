import { errorText } from '../errors.js';
import type { DeviceId } from '../model.js';
import type { Authentication, Device } from './device.js';
import type { Hub } from './hub.js';
import type { StoredEntry } from './mailbox.js';
import type { HubMessage } from './message.js';
import type { StoredEvent } from './partitions.js';
import type { StateDirectory } from './state.js';
import type { Json, Section } from './twin.js';

/**
 * What survives a restart, in two files of the state directory: `hub.json` has the registry with twins and waiting
 * commands and is replaced as a whole; `events.ndjson` has what devices sent, one event a line, and grows until the
 * next start. Both are written a moment after a change: a crash may cost that moment.
 */
export class Snapshots {
  readonly #hub: Hub;
  readonly #state: StateDirectory;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  /** Per partition, the next event to write. */
  readonly #written: number[];
  readonly #stopListening: () => void;

  private constructor(hub: Hub, state: StateDirectory) {
    this.#hub = hub;
    this.#state = state;
    this.#written = hub.partitions.all.map(({ next }) => next);
    this.#stopListening = hub.record.listen(() => {
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined;
        this.#save();
      }, delayMs);
    });
  }

  /** Restores what is there, and keeps it from now on. */
  static async open(hub: Hub, state: StateDirectory): Promise<Snapshots> {
    const text = await state.read('hub.json');
    if (text !== undefined) restoreRegistry(hub, JSON.parse(text, reviveBuffers) as StoredHub);
    const events = await state.read('events.ndjson');
    if (events !== undefined) restoreEvents(hub, events);
    // Without what retention has let go of meanwhile.
    await state.write(
      'events.ndjson',
      hub.partitions.all.map((each) => eventLines(each.id, each.events)).join(''),
    );
    return new Snapshots(hub, state);
  }

  /** Writes what has not been written. */
  async close(): Promise<void> {
    this.#stopListening();
    clearTimeout(this.#timer);
    this.#save();
    await this.#writing;
  }

  #save(): void {
    this.#writing = this.#writing
      .then(async () => {
        const lines = this.#hub.partitions.all.map((partition, i) => {
          const from = this.#written[i] ?? 0;
          this.#written[i] = partition.next;
          return eventLines(partition.id, partition.events.slice(Math.max(0, from - partition.first)));
        });
        await this.#state.append('events.ndjson', lines.join(''));
        await this.#state.write('hub.json', JSON.stringify(storedHub(this.#hub)));
      })
      .catch((error: unknown) => {
        this.#hub.record.add({ event: 'trouble', text: `state was not written: ${errorText(error)}` });
      });
  }
}

const delayMs = 500;

interface StoredHub {
  devices: StoredDevice[];
}

interface StoredDevice extends DeviceId {
  generationId: string;
  etag: string;
  status: Device['status'];
  statusReason?: string | undefined;
  authentication: Authentication;
  capabilities?: { iotEdge: boolean } | undefined;
  twin: { etag: string; version: number; tags: Json; desired: Section; reported: Section };
  commands: StoredEntry<HubMessage>[];
}

function storedHub(hub: Hub): StoredHub {
  return {
    devices: [...hub.devices].map(({ twin, mailbox, owner: _owner, methods: _methods, ...device }) => ({
      ...device,
      twin: {
        etag: twin.etag,
        version: twin.version,
        tags: twin.tags,
        desired: twin.desired,
        reported: twin.reported,
      },
      commands: mailbox.entries.map(({ state: _state, ...entry }) => entry),
    })),
  };
}

function restoreRegistry(hub: Hub, { devices }: StoredHub): void {
  for (const stored of devices) {
    const { deviceId, moduleId, authentication, twin, commands, ...rest } = stored;
    const device = hub.add({ deviceId, moduleId }, authentication);
    Object.assign(device, rest);
    device.twin.restore(twin);
    device.mailbox.restore(commands);
  }
}

interface EventLine extends StoredEvent {
  partition: string;
}

function eventLines(partition: string, events: readonly StoredEvent[]): string {
  return events
    .map(({ encoded: _encoded, ...event }) => `${JSON.stringify({ partition, ...event })}\n`)
    .join('');
}

function restoreEvents(hub: Hub, text: string): void {
  const perPartition = new Map<string, StoredEvent[]>();
  for (const line of text.split('\n')) {
    const parsed = line === '' ? undefined : parsedLine(line);
    if (parsed === undefined) continue;
    const { partition, ...event } = parsed;
    perPartition.set(partition, [...(perPartition.get(partition) ?? []), event]);
  }
  for (const partition of hub.partitions.all) partition.restore(perPartition.get(partition.id) ?? []);
}

/** A crash may have cut the last line. */
function parsedLine(line: string): EventLine | undefined {
  try {
    return JSON.parse(line, reviveBuffers) as EventLine;
  } catch {
    return undefined;
  }
}

/** `Buffer.toJSON` writes `{"type":"Buffer","data":[…]}`. */
function reviveBuffers(_key: string, value: unknown): unknown {
  const isBuffer =
    typeof value === 'object' &&
    value !== null &&
    'type' in value &&
    value.type === 'Buffer' &&
    'data' in value;
  return isBuffer ? Buffer.from(value.data as number[]) : value;
}
