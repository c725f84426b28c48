import { fileURLToPath } from 'node:url';

/** Path of a file of this package. Nothing else may depend on where its code stands: it is bundled, too. */
export function packageFile(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url));
}
