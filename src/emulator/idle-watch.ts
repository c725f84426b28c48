import type { Duplex } from 'node:stream';

/** Calls `onIdle` once when nothing has arrived for as long. rhea would wait twice as long. */
export function watchIdleness(socket: Duplex, idleTimeoutMs: number, onIdle: () => void): void {
  let heard = performance.now();
  socket.on('data', () => {
    heard = performance.now();
  });
  const timer = setInterval(() => {
    if (performance.now() - heard < idleTimeoutMs) return;
    clearInterval(timer);
    onIdle();
  }, idleTimeoutMs / 8).unref();
  socket.once('close', () => {
    clearInterval(timer);
  });
}
