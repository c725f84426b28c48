import { lstatSync, readlinkSync, statSync } from 'node:fs';
import { dirname, join, parse, resolve, sep } from 'node:path';
import type { Stats } from 'node:fs';

import { errorText, systemErrorCode } from '../errors.js';

/** More links than this on the way to a file are a loop (ELOOP). */
const mostLinks = 40;

/**
 * Why a file must not be run, or undefined when it may. Nobody but root and the agent's own user may be able to
 * change it: neither the file nor a link or directory on the way to it may be theirs or writable to them. This is
 * asked before each run; as long as it holds, nobody else can exchange the file between the question and the run.
 *
 * A directory that all may write to is let pass when it is sticky (`/tmp`): there others cannot move or remove what
 * is root's or ours.
 */
export function permissionProblem(file: string): string | undefined {
  const path = resolve(file);
  try {
    return problemOnTheWay(path, mostLinks) ?? problemOfFile(path);
  } catch (error) {
    // A file that is not there is found missing when it is started, and said so.
    return systemErrorCode(error) === 'ENOENT' ? undefined : errorText(error);
  }
}

function problemOnTheWay(path: string, linksLeft: number): string | undefined {
  if (linksLeft === 0) return `${path} is behind a loop of links`;
  let here = parse(path).root;
  let problem = problemOf(here, lstatSync(here));
  for (const step of path.slice(here.length).split(sep)) {
    if (problem !== undefined) return problem;
    here = join(here, step);
    const stats = lstatSync(here);
    if (stats.isSymbolicLink()) {
      const rest = path.slice(here.length);
      return (
        problemOfOwner(here, stats) ??
        problemOnTheWay(join(resolve(dirname(here), readlinkSync(here)), rest), linksLeft - 1)
      );
    }
    problem = problemOf(here, stats);
  }
  return problem;
}

function problemOfFile(path: string): string | undefined {
  const stats = statSync(path);
  if (!stats.isFile()) return `${path} is not a file`;
  return undefined;
}

function problemOf(path: string, stats: Stats): string | undefined {
  const sticky = stats.isDirectory() && (stats.mode & 0o1000) !== 0;
  if (!sticky && (stats.mode & 0o022) !== 0) {
    const who = (stats.mode & 0o002) !== 0 ? 'everyone' : 'its group';
    return `${path} is writable by ${who}; chmod go-w ${path}`;
  }
  return problemOfOwner(path, stats);
}

function problemOfOwner(path: string, { uid }: Stats): string | undefined {
  const own = process.geteuid?.();
  if (own === undefined || uid === 0 || uid === own) return undefined;
  return `${path} belongs to user ${uid}, neither root nor the agent's user (${own})`;
}
