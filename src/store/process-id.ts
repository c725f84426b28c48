import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/**
 * Names a process so that another one can tell whether it is gone, for good and without doubt: boot, pid namespace,
 * pid, and when it started. A pid alone names someone else after a while, after a reboot, and in another container.
 */
export function thisProcess(): string {
  const started = startOf(process.pid);
  if (started === undefined) return `${hostname()} ${process.pid}`;
  return `${surroundings()} ${process.pid} ${started}`;
}

/** Whether the process is gone. False when that cannot be known from here. */
export function isGone(id: string): boolean {
  const [boot, namespace, pid, started] = id.split(' ');
  if (started === undefined || `${boot ?? ''} ${namespace ?? ''}` !== surroundings()) return false;
  return startOf(Number(pid)) !== started;
}

/** `{boot id} {pid namespace}`; empty where there is no /proc. */
function surroundings(): string {
  try {
    const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return `${boot} ${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    return '';
  }
}

/** When a process started, in clock ticks since the boot; undefined when there is none, or it is a zombie. */
function startOf(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // The name of the program stands in brackets and may hold anything (proc_pid_stat(5)): state is field 3, start 22.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' ? undefined : fields[19];
}
