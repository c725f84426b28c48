import type { Right } from './access.js';
import type { Route } from './addresses.js';
import { identityKey } from './device.js';
import type { Device } from './device.js';
import { refusal } from './errors.js';
import type { HubError } from './errors.js';
import { partitionObjection, redirect } from './event-links.js';
import type { Grants } from './grants.js';
import type { Hub } from './hub.js';
import type { LinkContext } from './links.js';

/** Whether a link may be opened, by what its connection has been granted and what the hub knows of the device. */
export class Admission {
  readonly #hub: Hub;
  readonly #grants: Grants;

  constructor(hub: Hub, grants: Grants) {
    this.#hub = hub;
    this.#grants = grants;
  }

  /** The device that an address speaks of. The Node SDK writes ids into it as they are, others percent-encode them. */
  deviceOf(route: Route, path: readonly string[]): Device | undefined {
    if (!('deviceId' in route)) return undefined;
    const asWritten = path[2]?.toLowerCase() === 'modules' ? path[3] : undefined;
    return this.#hub.find(route.deviceId, route.moduleId) ?? this.#hub.find(path[1] ?? '', asWritten);
  }

  /** Why a link may not be opened, or not stay open, if it may not. */
  objectionTo(route: Route, path: readonly string[], device: Device | undefined): HubError | undefined {
    const now = this.#hub.now();
    if (route.kind === 'cbs') return undefined;
    const right: Right = 'deviceId' in route ? 'DeviceConnect' : 'ServiceConnect';
    // A token for it names the event hub, its address does not.
    const { eventHubName } = this.#hub.settings;
    const scope = route.kind === 'management' ? [eventHubName, '$management'] : path;
    const allowed = this.#grants.allow(right, scope, device);
    if ('deviceId' in route && device === undefined) {
      const text = `there is no device ${identityKey(route)}`;
      return allowed ? refusal('device-unknown', text, now) : refusal('unauthorized', text, now);
    }
    if (!allowed) {
      const text = `no valid token on this connection allows ${right} on /${path.join('/')}`;
      return refusal('unauthorized', text, now);
    }
    return device && this.#hub.isDisabled(device) ? this.#hub.disabledError(device) : undefined;
  }

  /** Readers of events have rules of their own, or are sent on. */
  elsewhere(context: LinkContext): HubError | undefined {
    const { route } = context;
    const { host, port } = this.#hub.address;
    if (route.kind === 'events') return redirect(route.rest, host, port, this.#hub);
    return route.kind === 'partition' ? partitionObjection(context, this.#hub) : undefined;
  }
}
