/** One `-----BEGIN …` to `-----END …` of a file. */
export interface PemBlock {
  /** As `CERTIFICATE`. */
  label: string;
  /** Where it begins, from 1. */
  line: number;
  der: Buffer;
  /** An old key that is encrypted by its headers (`Proc-Type:`), which `der` alone is not enough for. */
  headers: readonly string[];
}

/** What is wrong with a PEM file, apart from what stands in it. */
export interface PemFault {
  /** From 1; undefined when it is all of the file. */
  line?: number;
  what: string;
  /** OpenSSL, and with it nearly everything, refuses the file. Others may be forgiven by some programs. */
  isFatal: boolean;
}

export interface PemFile {
  blocks: PemBlock[];
  faults: PemFault[];
}

/**
 * Reads a PEM file (RFC 7468) as far as it can be understood, and tells everything that OpenSSL would stumble over,
 * which says no more than "no start line". What was tried with OpenSSL 3.0 to know it: each fault has a test.
 */
export function readPem(bytes: Buffer): PemFile {
  const file: PemFile = { blocks: [], faults: [] };
  const fault = (what: string, line?: number, isFatal = true): void => {
    file.faults.push({ what, isFatal, ...(line === undefined ? {} : { line }) });
  };
  const text = textOf(bytes, fault);
  if (text === undefined) return file;
  const lines = text.split(/\r\n|\r|\n/);
  let open: OpenBlock | undefined;
  for (let n = 1; n <= lines.length; n++) {
    let rest = lines[n - 1] ?? '';
    // What stands behind an END on the same line is looked at as a line of its own.
    while (rest !== '' || open !== undefined) {
      const boundary = boundaryIn(rest);
      if (boundary === undefined) {
        if (open !== undefined) bodyLine(open, rest, n, n === lines.length, fault);
        break;
      }
      boundaryFaults(boundary, n, fault);
      if (boundary.kind === 'BEGIN') {
        if (open !== undefined)
          fault(`the ${open.label} that begins in line ${String(open.line)} has no END line`, n);
        open = { label: boundary.label, line: n, base64: [], headers: [] };
      } else if (open === undefined) {
        fault(`END ${boundary.label} without a BEGIN`, n, false);
      } else {
        if (boundary.label !== open.label)
          fault(`BEGIN ${open.label} (line ${String(open.line)}) ends with END ${boundary.label}`, n);
        if (boundary.after !== '')
          fault('something follows END on the same line: a line break is missing', n);
        file.blocks.push(closed(open));
        open = undefined;
      }
      rest = boundary.after;
      if (rest === '') break;
    }
  }
  if (open !== undefined)
    fault(
      `the ${open.label} that begins in line ${String(open.line)} has no END line: the file is cut off`,
      lines.length,
    );
  return file;
}

type Tell = (what: string, line?: number, isFatal?: boolean) => void;

interface OpenBlock {
  label: string;
  line: number;
  base64: string[];
  headers: string[];
}

function textOf(bytes: Buffer, fault: Tell): string | undefined {
  if (bytes.length === 0) {
    fault('the file is empty');
    return undefined;
  }
  const [first, second] = bytes;
  if ((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)) {
    fault('the file is UTF-16; save it as UTF-8 without a mark');
    return bytes
      .toString(first === 0xff ? 'utf16le' : 'latin1')
      .replaceAll('\0', '')
      .slice(1);
  }
  if (first === 0x30 && (second ?? 0) >= 0x80) {
    fault('the file is DER or PFX, not PEM: openssl x509 -inform der -in FILE turns a certificate into PEM');
    return undefined;
  }
  if (first === 0xef && second === 0xbb) {
    fault('the file begins with a byte order mark, which some programs do not take', 1, false);
    return bytes.subarray(3).toString('utf8');
  }
  return bytes.toString('utf8');
}

interface Boundary {
  kind: 'BEGIN' | 'END';
  label: string;
  before: string;
  dashes: readonly [string, string];
  after: string;
}

function boundaryIn(line: string): Boundary | undefined {
  const found = /^(.*?)(-{2,}) ?(BEGIN|END) ([A-Z0-9 ]+?) ?(-{1,5})(.*)$/.exec(line);
  if (found === null) return undefined;
  const [, before = '', left = '', kind, label = '', right = '', after = ''] = found;
  return { kind: kind as Boundary['kind'], label, before, dashes: [left, right], after: after.trim() };
}

function boundaryFaults({ kind, before, dashes }: Boundary, line: number, fault: Tell): void {
  if (before !== '') {
    const what = before.trim() === '' ? 'spaces' : 'something';
    fault(`${what} before ${kind}: it has to begin the line`, line);
  }
  if (dashes.some((side) => side.length !== 5))
    fault(`${kind} has five dashes on each side, here it has others`, line);
}

/** A line between BEGIN and END. */
function bodyLine(open: OpenBlock, line: string, n: number, isLast: boolean, fault: Tell): void {
  const trimmed = line.trim();
  if (trimmed === '') {
    const endsHeaders = open.headers.length > 0 && open.base64.length === 0;
    // Right behind BEGIN OpenSSL forgives it; at the end of the file it is the missing END that counts.
    if (!endsHeaders && !isLast) fault(`a blank line inside of the ${open.label}`, n, open.base64.length > 0);
  } else if (/^[A-Za-z-]+:/.test(trimmed)) {
    open.headers.push(trimmed);
  } else {
    if (/^\s/.test(line)) fault('spaces at the beginning of the line', n, false);
    const [odd] = /[^A-Za-z0-9+/=\s]/.exec(trimmed) ?? [];
    if (odd !== undefined) fault(`"${odd}" is not base64`, n);
    else if (/\s/.test(trimmed)) fault('spaces inside of the base64', n, false);
    open.base64.push(trimmed);
  }
}

function closed({ label, line, base64, headers }: OpenBlock): PemBlock {
  return { label, line, headers, der: Buffer.from(base64.join(''), 'base64') };
}
