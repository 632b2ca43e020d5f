import { readFileSync } from 'node:fs';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';

/** Who started the server of a data directory; lets the next start tell an orphan from a server in use. */
export interface Owner {
  nodePid: number;
  /** When that process started, in the system's own words: a pid alone may have been given to another. */
  nodeStarted: string;
}

function ownerPath(dataDir: string): string {
  return join(dataDir, 'owner.json');
}

/** The start time of a living process as an opaque text, or undefined when there is no such process. */
export function processStarted(pid: number): string | undefined {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return undefined;
  }
  try {
    if (process.platform === 'linux') {
      const status = readFileSync(`/proc/${pid}/stat`, 'utf8');
      // Fields after the parenthesized command name, which may itself hold blanks; a zombie has ended.
      const fields = status.slice(status.lastIndexOf(')') + 2).split(' ');
      return fields[0] === 'Z' ? undefined : fields[19];
    }
    return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim() || undefined;
  } catch {
    return undefined;
  }
}

/** Records this process as the owner of the server in `dataDir`. */
export async function writeOwner(dataDir: string): Promise<void> {
  const owner: Owner = { nodePid: process.pid, nodeStarted: processStarted(process.pid) ?? '' };
  await writeFile(ownerPath(dataDir), JSON.stringify(owner));
}

/** The living process that owns the server in `dataDir`, if there is one. */
export async function livingOwner(dataDir: string): Promise<Owner | undefined> {
  const text = await readFile(ownerPath(dataDir), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  let owner: Owner;
  try {
    owner = JSON.parse(text) as Owner;
  } catch {
    return undefined; // cut short by a crash while it was written
  }
  return processStarted(owner.nodePid) === owner.nodeStarted ? owner : undefined;
}

export async function removeOwner(dataDir: string): Promise<void> {
  await rm(ownerPath(dataDir), { force: true });
}
