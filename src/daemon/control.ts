import type { Log } from '../log.js';
import { listen, type ControlPlace } from './control-socket.js';
import { openHttp, type Routes } from './http-server.js';

/**
 * The control socket: HTTP over a Unix socket, because every language and every shell speaks it already:
 *
 *     curl --unix-socket /run/iothub-device/control.sock http://agent/v1/status
 *
 * Who may open the socket may do all that it offers: the mode of its directory decides. Nothing that it answers is a
 * secret. Listens until it is disposed of. Errors: `config`, `cannot-create`, `try-again`, as `listen` of
 * `control-socket`.
 */
export function openControl(place: ControlPlace, routes: Routes, log: Log): Promise<AsyncDisposable> {
  return openHttp({
    name: 'the control socket',
    routes,
    listen: (server) => listen(server, place),
    mostConnections: 256,
    mostRequests: 192,
    log,
  });
}
