import type { Files, StoreFile } from './files.js';

/** Told when a call that changes the disk begins; calls what it returns when that has come back, well or not. */
export type DiskWatch = (call: 'write' | 'sync') => () => void;

/** The same files, with every write and sync watched: a disk that hangs, hangs in one of these. */
export function watchedFiles(files: Files, watch: DiskWatch): Files {
  const during = async <T>(call: 'write' | 'sync', work: () => Promise<T>): Promise<T> => {
    const ended = watch(call);
    try {
      return await work();
    } finally {
      ended();
    }
  };
  const watchedFile = (file: StoreFile): StoreFile => ({
    read: (into, position) => file.read(into, position),
    write: (from, position) => during('write', () => file.write(from, position)),
    sync: () => during('sync', () => file.sync()),
    size: () => file.size(),
    truncate: (bytes) => file.truncate(bytes),
    close: () => file.close(),
  });
  return {
    ...files,
    open: async (path, access) => watchedFile(await files.open(path, access)),
    create: async (path) => watchedFile(await files.create(path)),
    syncDirectory: (path) => during('sync', () => files.syncDirectory(path)),
  };
}
