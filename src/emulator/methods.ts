import { randomBytes } from 'node:crypto';

import type { FaultAction } from './faults.js';
import type { Hub } from './hub.js';
import type { LinkContext, Outlet, Transfer } from './links.js';
import { bodyBytes } from './message.js';
import type { WireMessage } from './message.js';
import { answer } from './telemetry.js';
import { dataSection, idText, uuid, uuidText } from './wire.js';

/** A direct method: a service asks, the device answers while the service waits. */
export interface MethodCall {
  name: string;
  /** JSON text. */
  payload: string;
  /** How long the device may take to answer. */
  responseTimeoutMs: number;
  /** How long to wait for a device that is not there. */
  connectTimeoutMs: number;
}

export type MethodResult =
  { result: 'answered'; status: number; payload: string } | { result: 'offline' } | { result: 'no-answer' };

/** The device's side of methods: whoever listens on its method link, and what waits for an answer. */
export class MethodChannel {
  #listener: ((call: MethodCall, correlation: Buffer) => void) | undefined;
  readonly #arrivals = new Set<() => void>();
  readonly #pending = new Map<string, Pending>();

  /** From now on calls go to `listener`; the last one to come has them. */
  listen(listener: (call: MethodCall, correlation: Buffer) => void): () => void {
    this.#listener = listener;
    for (const arrived of this.#arrivals) arrived();
    this.#arrivals.clear();
    return () => {
      if (this.#listener === listener) this.#listener = undefined;
    };
  }

  async call(call: MethodCall): Promise<MethodResult> {
    if (this.#listener === undefined && !(await this.#arrival(call.connectTimeoutMs)))
      return { result: 'offline' };
    const correlation = randomBytes(16);
    const id = uuidText(correlation);
    return await new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        resolve({ result: 'no-answer' });
      }, call.responseTimeoutMs);
      const answer = (status: number, payload: string): void => {
        clearTimeout(timer);
        this.#pending.delete(id);
        resolve({ result: 'answered', status, payload });
      };
      this.#pending.set(id, { name: call.name, answer });
      this.#listener?.(call, correlation);
    });
  }

  /** Gives the method's name; an answer that came too late, or to nothing, is dropped. */
  answered(id: string, status: number, payload: string): string | undefined {
    const pending = this.#pending.get(id);
    pending?.answer(status, payload);
    return pending?.name;
  }

  async #arrival(timeoutMs: number): Promise<boolean> {
    if (timeoutMs <= 0) return false;
    return await new Promise((resolve) => {
      const arrived = (): void => {
        clearTimeout(timer);
        resolve(true);
      };
      const timer = setTimeout(() => {
        this.#arrivals.delete(arrived);
        resolve(false);
      }, timeoutMs);
      this.#arrivals.add(arrived);
    });
  }
}

interface Pending {
  name: string;
  answer: (status: number, payload: string) => void;
}

/** Calls go out here. The correlation id is an AMQP uuid: the C SDK takes nothing else. */
export function openMethodCalls(outlet: Outlet, hub: Hub): void {
  const { device } = outlet.context;
  if (device === undefined) return;
  const { deviceId, moduleId } = device;
  outlet.onClosed = device.methods.listen(({ name, payload }, correlation) => {
    hub.record.add({ event: 'method', deviceId, moduleId, name });
    outlet.post({
      correlation_id: uuid(correlation),
      application_properties: { 'IoThub-methodname': name },
      body: dataSection(Buffer.from(payload)),
    });
  });
}

/** And their answers come in here, with the correlation id as uuid or as its text. */
export function openMethodAnswers(
  { device }: LinkContext,
  hub: Hub,
): (transfer: Transfer, fault?: FaultAction) => void {
  return (transfer, fault) => {
    answer(transfer, { outcome: 'accepted' }, fault, hub);
    if (device === undefined || fault?.act === 'say-nothing') return;
    const message = transfer.content as WireMessage;
    const status = Number(message.application_properties?.['IoThub-status'] ?? 0);
    const id = idText(message.correlation_id)?.toLowerCase() ?? '';
    const name = device.methods.answered(id, status, bodyBytes(message.body).toString('utf8')) ?? 'unknown';
    const { deviceId, moduleId } = device;
    hub.record.add({ event: 'method', deviceId, moduleId, name, status });
  };
}
