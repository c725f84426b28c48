import { openSync, readdirSync, readFileSync } from 'node:fs';

/** O_CLOEXEC in `/proc/self/fdinfo`, which prints flags in octal. */
const closeOnExec = 0o2000000;

let cached: ('ignore' | number)[] | undefined;

/**
 * What the list of a child's descriptors has after 0, 1 and 2. Node opens everything close-on-exec, but what this
 * process itself inherited from its parent may be open without (Node sets it for the first sixteen only), and would
 * reach every program. Where there is such a descriptor, the program gets `/dev/null` under its number. It is not
 * closed here, since it may be a lock that someone holds on purpose (`flock`).
 */
export function inheritedDescriptors(): readonly ('ignore' | number)[] {
  return (cached ??= coverInherited());
}

function coverInherited(): ('ignore' | number)[] {
  const open = leakyDescriptors();
  const highest = open.at(-1);
  if (highest === undefined) return [];
  const nothing = openSync('/dev/null', 'r+');
  return Array.from({ length: highest - 2 }, (_, index) => (open.includes(index + 3) ? nothing : 'ignore'));
}

function leakyDescriptors(): number[] {
  try {
    const limit = descriptorLimit();
    return readdirSync('/proc/self/fd')
      .map(Number)
      .filter((descriptor) => descriptor < limit / 2 && isLeaky(descriptor))
      .sort((a, b) => a - b);
  } catch {
    return []; // no /proc
  }
}

/** libuv needs as many free numbers again as the list is long; above half the limit a start would fail (EINVAL). */
function descriptorLimit(): number {
  const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1];
  return limit === undefined ? Infinity : Number(limit);
}

function isLeaky(descriptor: number): boolean {
  if (descriptor <= 2) return false;
  try {
    const flags = /^flags:\s*([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8'))?.[1];
    return flags !== undefined && (parseInt(flags, 8) & closeOnExec) === 0;
  } catch {
    return false; // the one that the listing itself used
  }
}
