import '../no-debug.js';

import { randomBytes } from 'node:crypto';
import rhea from 'rhea';
import type { Connection, Delivery, Receiver, Sender, Session } from 'rhea';

import type { SendOutcome } from '../model.js';
import type { HubError } from './errors.js';

/**
 * The corner of AMQP and of rhea that the rest of the emulator stands on: types that must be spelled out, outcomes,
 * and a typed view of those insides of rhea that a server needs and its typings do not show.
 */
export { rhea };
export type { Connection, Delivery, Receiver, Sender, Session };

/** rhea writes a plain JavaScript number as uint, so every other width is named. */
export const int = (value: number): unknown => rhea.types.wrap_int(value);
export const long = (value: number): unknown => rhea.types.wrap_long(value);
export const ulong = (value: number): unknown => rhea.types.wrap_ulong(value);
export const ubyte = (value: number): unknown => rhea.types.wrap_ubyte(value);
export const timestamp = (milliseconds: number): unknown => rhea.types.wrap_timestamp(milliseconds);
export const uuid = (bytes: Buffer): unknown => rhea.types.wrap_uuid(bytes);

/** A message body of one data section. */
export const dataSection = (bytes: Buffer): unknown => rhea.message.data_section(bytes);

/** A whole message, encoded. */
export const encode = (message: object): Buffer => rhea.message.encode(message);

/** A message or correlation id as it came: string, ulong (number), uuid or binary (Buffer). rhea sends it back alike. */
export type WireId = string | number | Buffer;

/** The text of an id: a 16-byte one is a uuid, in canonical form. */
export function idText(id: WireId | undefined | null): string | undefined {
  if (id === undefined || id === null) return undefined;
  if (!Buffer.isBuffer(id)) return String(id);
  return id.length === 16 ? uuidText(id) : id.toString('utf8');
}

export function uuidText(bytes: Buffer): string {
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

/** A lock token, and the 16-byte delivery tag that .NET's `Guid.ToByteArray` makes of it. */
export function newLockToken(): { token: string; tag: Buffer } {
  const tag = randomBytes(16);
  return { token: lockTokenOf(tag), tag };
}

/** .NET keeps the first three fields of a Guid little-endian. */
function lockTokenOf(tag: Buffer): string {
  const bytes = Buffer.from(tag);
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return uuidText(bytes);
}

/** The AMQP delivery state of an outcome, encoded once for `accepted`, which is nearly all of them. */
export function deliveryState(outcome: SendOutcome): unknown {
  switch (outcome.outcome) {
    case 'accepted':
      return accepted;
    case 'released':
      return described('released', {});
    case 'modified':
      return described('modified', {
        delivery_failed: true,
        undeliverable_here: outcome.undeliverableHere,
      });
    case 'rejected': {
      const { condition, description } = outcome;
      return described('rejected', condition === undefined ? {} : { error: { condition, description } });
    }
  }
}

/** What a client's disposition said, from the event rhea raised for it. */
export function clientOutcome(delivery: Delivery, event: SendOutcome['outcome']): SendOutcome {
  if (event === 'modified') {
    return { outcome: event, undeliverableHere: delivery.remote_state?.['undeliverable_here'] === true };
  }
  if (event !== 'rejected') return { outcome: event };
  const error = delivery.remote_state?.['error'] as { condition?: string; description?: string } | undefined;
  return {
    outcome: 'rejected',
    condition: error?.condition ?? undefined,
    description: error?.description ?? undefined,
  };
}

type OutcomeFactory = (fields: object) => { described(): unknown };

function described(name: SendOutcome['outcome'], fields: object): unknown {
  return (rhea.message as unknown as Record<string, OutcomeFactory>)[name]?.(fields).described();
}

const accepted = described('accepted', {});

/** What rhea keeps of a link and its typings leave out. */
export interface LinkInsides {
  local: { attach: Record<string, unknown>; detach: { value: { value: unknown }[] } };
  remote: { attach?: Record<string, unknown> };
  credit: number;
}

export function insides(link: Sender | Receiver): LinkInsides {
  return link as unknown as LinkInsides;
}

/** Detaches (closed), with an error whose info has symbol keys, as clients look them up; rhea writes strings. */
export function closeLink(link: Sender | Receiver, error: HubError | undefined): void {
  if (error === undefined) {
    link.close();
    return;
  }
  const { condition, description, info } = error;
  link.close({ condition, description, info: {} });
  if (info === undefined) return;
  const { detach } = insides(link).local;
  // The third field of a detach is its error, whose third field is the info map.
  const written = detach.value[2]?.value as unknown[] | undefined;
  if (written) written[2] = rhea.types.wrap_symbolic_map(info);
}

/** Id of the next delivery that the session has yet to put on the wire. */
export function nextUnsent(session: Session): number {
  return (session as unknown as { outgoing: { next_pending_delivery: number } }).outgoing
    .next_pending_delivery;
}

/**
 * Lets rhea drop a delivery that nobody will settle any more, because its link is gone. Without this it stays in the
 * session's buffer of 2 048, which then never empties.
 */
export function forget(delivery: Delivery): void {
  Object.assign(delivery, { settled: true, remote_settled: true });
}
