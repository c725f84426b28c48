import type { TwinLink } from '../amqp/twin.js';
import type { HubSession } from '../amqp/session.js';
import { createBackoff } from '../backoff.js';
import { AgentError } from '../errors.js';
import type { TwinEvent } from '../handlers/contract.js';
import type { Dispatcher } from '../handlers/dispatch.js';
import { faultLimit, type Answer } from '../handlers/handler.js';
import { parseJson } from '../handlers/json.js';
import { plainText } from '../handlers/output.js';
import type { DeviceId } from '../model.js';
import { anyOf } from '../signals.js';
import { keepChannel, type ChannelOptions } from './channel.js';
import { changesToHandOn, DesiredProperties, type Change } from './desired.js';
import { isJsonObject, type JsonObject } from './merge-patch.js';
import { Reports } from './reports.js';
import { readPatch, readTwin } from './twin-document.js';

export interface TwinOptions extends ChannelOptions {
  identity: DeviceId;
  /** Whether what is desired already when it begins is handed on. Default true. */
  fromPresent?: boolean | undefined;
  /** The desired properties have been read, and changes are told from now on. */
  onServing?: (() => void) | undefined;
  /** The hub has taken a report. */
  onReported?: (() => void) | undefined;
}

/**
 * Keeps the device as its desired properties say: hands each change to its handler, one at a time for each property,
 * and reports what became of it. It lasts as long as the process, and `serve` as long as a session. So no change is
 * missed and none handed on twice, whatever the connection does; when the process begins, all that is desired is
 * handed on once, for what handlers did before may be gone with the former process.
 *
 * A value that is replaced before its turn is skipped. A handler that says "later" is asked again with backoff.
 */
export class TwinKeeper {
  readonly #dispatcher: Pick<Dispatcher, 'takes' | 'answer'>;
  readonly #options: TwinOptions;
  readonly #desired = new DesiredProperties();
  readonly #reports: Reports;
  /** Properties whose handler runs or will run again, by path. */
  readonly #busy = new Map<string, Turn>();
  /** Who was last given a property, by path. */
  readonly #takers = new Map<string, string | undefined>();
  readonly #news = new News();
  #hasRead = false;

  constructor(dispatcher: Pick<Dispatcher, 'takes' | 'answer'>, options: TwinOptions) {
    this.#dispatcher = dispatcher;
    this.#options = options;
    this.#reports = new Reports(options.log);
  }

  /**
   * Follows the desired properties and reports for as long as the session holds. After `stopping` aborts nothing new
   * begins; it resolves when what runs has ended and is reported.
   */
  async serve(session: Pick<HubSession, 'openTwin' | 'over'>): Promise<void> {
    await keepChannel(
      session,
      {
        what: 'twin',
        open: (signal) => session.openTwin(signal),
        work: async (link, healthy) => {
          const left = new AbortController();
          using until = anyOf(link.over, session.over, left.signal);
          try {
            await Promise.all([this.#follow(link, until), this.#report(link, until, healthy)]);
          } finally {
            left.abort();
          }
        },
      },
      this.#options,
    );
  }

  /** Hands on what is desired to handlers that did not have it before. To be called when there are others. */
  handlersChanged(): void {
    if (this.#hasRead)
      this.#handOn(this.#desired.all(), (change, taker) => this.#takers.get(change.path) !== taker);
  }

  /** First the subscription, then the reading: what changes between them is told, and told twice at worst. */
  async #follow(link: TwinLink, over: AbortSignal): Promise<void> {
    const { stopping, onServing } = this.#options;
    using until = anyOf(over, stopping);
    const missed = new News();
    // While the twin is read, what is told has to wait for it.
    let early: (Buffer | undefined)[] | undefined = [];
    const take = (patch: Buffer | undefined) => {
      if (!this.#notified(patch)) missed.tell();
    };
    try {
      await link.watchDesired((patch) => {
        if (early === undefined) take(patch);
        else if (early.length < mostEarly) early.push(patch);
        else missed.tell();
      }, until);
      for (;;) {
        const told = missed.next(until);
        this.#read(await link.get(until));
        onServing?.();
        const waiting = early;
        early = undefined;
        for (const patch of waiting) take(patch);
        await told;
        until.throwIfAborted();
        early = [];
      }
    } catch (error) {
      if (over.aborted || !stopping.aborted) throw error;
    }
  }

  #read(bytes: Buffer): void {
    const { desired, reported } = readTwin(bytes);
    this.#reports.read(reported.properties);
    const changes = this.#desired.read(desired);
    if (this.#hasRead || this.#options.fromPresent !== false) this.#handOn(changes);
    this.#hasRead = true;
  }

  /** False when something was missed, so that the twin has to be read. */
  #notified(bytes: Buffer | undefined): boolean {
    const { log } = this.#options;
    const section = bytes && readPatch(bytes);
    if (section === undefined) {
      log.warn('a change of the desired properties cannot be read; all of them are read instead');
      return false;
    }
    const changes = this.#desired.notified(section);
    log.debug('desired properties changed', { version: section.version });
    if (changes === 'missed') return false;
    if (changes !== 'known') this.#handOn(changes);
    return true;
  }

  #handOn(
    changes: readonly Change[],
    isWanted: (change: Change, taker: string | undefined) => boolean = () => true,
  ): void {
    if (this.#options.stopping.aborted) return;
    const takes = (change: Change) => this.#dispatcher.takes(this.#eventOf(change));
    for (const change of changesToHandOn(changes, takes)) {
      const taker = takes(change);
      if (!isWanted(change, taker)) continue;
      this.#takers.set(change.path, taker);
      const turn = this.#busy.get(change.path);
      if (turn === undefined) void this.#takeTurns(change);
      else turn.follow(change);
    }
  }

  /** One change of a property after the other, always the newest. */
  async #takeTurns(first: Change): Promise<void> {
    for (let next: Change | undefined = first; next !== undefined;) {
      const turn = new Turn();
      this.#busy.set(first.path, turn);
      await this.#apply(next, turn.replaced);
      next = turn.next;
    }
    this.#busy.delete(first.path);
    this.#news.tell();
  }

  async #apply(change: Change, replaced: AbortSignal): Promise<void> {
    const { clock, stopping } = this.#options;
    using until = anyOf(stopping, replaced);
    const backoff = createBackoff();
    let faults = 0;
    for (let attempt = 1; !until.aborted; attempt++) {
      const answer = await this.#dispatcher.answer(this.#eventOf(change), { attempt, signal: replaced });
      if (answer === undefined) return;
      if (answer.decidedBy === 'fault') faults++;
      // Stopped half-way it says nothing; where it was not us who are stopping, another handler has taken its place.
      if (answer.decidedBy !== 'stopping') this.#acknowledge(change, answer);
      if (answer.outcome !== 'release' || faults >= faultLimit) return;
      const cannotStart = answer.decidedBy === 'installation';
      await clock.sleep(backoff.next(cannotStart ? 'late' : 'soon'), until).catch(() => undefined);
    }
  }

  #acknowledge({ path, version, value }: Change, { status, reason, reply }: Answer): void {
    const isTaken = status >= 200 && status < 300;
    this.#reports.add({
      path,
      version,
      status,
      description: reason === undefined ? undefined : plainText(reason, longestDescription),
      value: isTaken ? value : undefined,
      more: reply && this.#patchIn(reply, path),
    });
    this.#news.tell();
  }

  /** What a handler answers is a patch of the reported properties, or nothing that can be reported. */
  #patchIn(reply: Buffer, path: string): JsonObject | undefined {
    const parsed = parseJson(reply);
    if (parsed.ok && isJsonObject(parsed.value)) return parsed.value;
    this.#options.log.info('what the handler answered is no JSON object and is not reported', { path });
    return undefined;
  }

  async #report(link: TwinLink, until: AbortSignal, healthy: () => void): Promise<void> {
    const { clock, log, stopping, onReported } = this.#options;
    const backoff = createBackoff();
    const onStopping = () => {
      this.#news.tell();
    };
    stopping.addEventListener('abort', onStopping);
    try {
      for (;;) {
        const news = this.#news.next(until);
        try {
          await this.#reports.sendAll(async (patch) => {
            await link.report(patch, until);
            backoff.reset();
            healthy();
            onReported?.();
          });
        } catch (error) {
          until.throwIfAborted();
          if (!(error instanceof AgentError) || stopping.aborted) throw error;
          log.warn('the hub could not take a report; it is sent again', { error });
          await clock.sleep(backoff.next('soon'), until);
          continue;
        }
        if (stopping.aborted && this.#busy.size === 0) return;
        await news;
        until.throwIfAborted();
      }
    } finally {
      stopping.removeEventListener('abort', onStopping);
    }
  }

  #eventOf({ path, value, version }: Change): TwinEvent {
    return {
      event: 'twin',
      ...this.#options.identity,
      path,
      version,
      properties: {},
      contentType: 'application/json',
      body: Buffer.from(JSON.stringify(value)),
    };
  }
}

/** Changes that are kept while the twin is read; what comes beyond is found by reading it once more. */
const mostEarly = 100;
/** The hub takes 4 KB for a text; a reason is a line. */
const longestDescription = 512;

/** The change of a property that is being applied, and the one that comes after it. */
class Turn {
  readonly #replaced = new AbortController();
  next: Change | undefined;

  /** Aborted when a newer change waits. */
  get replaced(): AbortSignal {
    return this.#replaced.signal;
  }

  follow(change: Change): void {
    this.next = change;
    this.#replaced.abort();
  }
}

/** Wakes who waits for something to happen. */
class News {
  #tell: () => void = () => undefined;

  /** Resolves when something is told after this call, or `until` is aborted. For one at a time. */
  async next(until: AbortSignal): Promise<void> {
    if (until.aborted) return;
    let wake: () => void = () => undefined;
    await new Promise<void>((resolve) => {
      wake = resolve;
      this.#tell = resolve;
      until.addEventListener('abort', wake);
    });
    until.removeEventListener('abort', wake);
  }

  tell(): void {
    this.#tell();
  }
}
