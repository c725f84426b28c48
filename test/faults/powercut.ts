/**
 * Cuts the power, as far as a file system can tell: a process works with a store on an ext4 of its own, in an image
 * that is mounted so that nothing is written back but what is synced; the image is copied, and the copy is mounted as
 * a machine would after the cut. What was promised has to be there.
 *
 *     npm run powercut -- [IMAGES]        100 by default; needs root, for mounting
 *
 * `kill -9` does not test this: the page cache outlives the process. That the image does is tested here too: a file
 * that was written and not synced has to be missing from it.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { Promises, WriterProcess } from './store-process.js';

export interface PowerCuts {
  readonly images: number;
  /** Promises that were checked after cuts, each time anew. */
  readonly promises: number;
  readonly broken: readonly string[];
  /** Images in which the file that was not synced is there all the same. */
  readonly unsyncedFound: number;
}

const segmentBytes = 256 * 1024;
/** A store is worked with for so many cuts, then a new one is begun. */
const cutsPerStore = 10;

export function canCutPower(): boolean {
  const hasTools = ['mkfs.ext4', 'mount', 'umount'].every(
    (tool) => spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0,
  );
  return hasTools && process.getuid?.() === 0 && existsSync('/dev/loop-control');
}

export async function cutPower(
  images: number,
  onImage: (done: number) => void = () => undefined,
): Promise<PowerCuts> {
  const root = mkdtempSync(join(tmpdir(), 'iothub-powercut-'));
  const image = join(root, 'image');
  const cut = join(root, 'cut');
  const mountPoint = join(root, 'mnt');
  mkdirSync(mountPoint);
  let promised = 0;
  let unsyncedFound = 0;
  const broken: string[] = [];
  try {
    let promises = new Promises();
    for (let i = 0; i < images; i++) {
      if (i % cutsPerStore === 0) {
        promises = new Promises();
        makeImage(image);
      }
      mount(image, mountPoint);
      try {
        await work(mountPoint, `i${i}`, promises);
        copyFileSync(image, cut);
      } finally {
        execFileSync('umount', [mountPoint]);
      }
      mount(cut, mountPoint);
      try {
        if (existsSync(join(mountPoint, 'unsynced'))) unsyncedFound++;
        broken.push(
          ...(await promises.broken(join(mountPoint, 'store'))).map((what) => `image ${i}: ${what}`),
        );
        promised += promises.count;
        rmSync(join(mountPoint, 'unsynced'), { force: true });
      } finally {
        execFileSync('umount', [mountPoint]);
      }
      // The next process goes on with what the cut has left.
      copyFileSync(cut, image);
      onImage(i + 1);
    }
  } finally {
    rmSync(root, { recursive: true });
  }
  return { images, promises: promised, broken, unsyncedFound };
}

async function work(mountPoint: string, prefix: string, promises: Promises): Promise<void> {
  const directory = join(mountPoint, 'store');
  await using writer = new WriterProcess({ directory, prefix, segmentBytes, promises });
  const before = promises.count;
  await writer.until(() => promises.count > before + 10);
  await delay(Math.random() * 150);
  await writer.kill();
  writeFileSync(join(mountPoint, 'unsynced'), 'nobody synced this');
}

function makeImage(path: string): void {
  rmSync(path, { force: true });
  execFileSync('truncate', ['-s', '48M', path]);
  execFileSync('mkfs.ext4', ['-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', path]);
}

/** `commit=300`: ext4 writes nothing back by itself while we look. */
function mount(image: string, mountPoint: string): void {
  execFileSync('mount', ['-o', 'loop,commit=300', image, mountPoint]);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const images = Number(process.argv[2] ?? 100);
  const result = await cutPower(images, (done) => {
    if (done % 10 === 0) process.stderr.write(`${done} of ${images}\n`);
  });
  process.stdout.write(`${JSON.stringify(result)}\n`);
  process.exitCode = result.broken.length > 0 || result.unsyncedFound === result.images ? 1 : 0;
}
