import type { Io } from '../io.js';
import type { Drained } from './spool-drain.js';

export interface Progress {
  show(now: Drained): void;
  close(): void;
}

/** A line on a terminal that says how far it is; undefined where there is none to see it. */
export async function openProgress(io: Io, total: number): Promise<Progress | undefined> {
  if (!io.stderr.isTTY || io.verbosity < 0) return undefined;
  const { default: cliProgress } = await import('cli-progress');
  const bar = new cliProgress.SingleBar({
    stream: io.stderr.stream,
    format: 'drain  {value}/{total} {bar} {percentage}%  {eta_formatted} left  {rejected} rejected',
    barCompleteChar: '▇',
    barIncompleteChar: '▁',
    barsize: 20,
    fps: 10,
    hideCursor: true,
    clearOnComplete: true,
  });
  bar.start(total, 0, { rejected: 0 });
  return {
    show: ({ rejected, left }) => {
      bar.update(total - left, { rejected });
    },
    close: () => {
      bar.stop();
    },
  };
}
