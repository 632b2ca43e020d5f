import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { readFile, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { livingOwner, processStarted } from './owner-file.ts';
import { shutDown } from './shutdown.ts';

function commandLine(pid: number): string {
  try {
    if (process.platform === 'linux') return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    return execFileSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8' });
  } catch {
    return '';
  }
}

/** What Postgres writes of itself into its data directory: first line the pid, eighth line the state. */
export async function readPostmasterFile(pgData: string): Promise<{ pid: number; state: string } | undefined> {
  const text = await readFile(join(pgData, 'postmaster.pid'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const lines = text.split('\n');
  return { pid: Number(lines[0]), state: lines[7]?.trim() ?? '' };
}

/**
 * Ends a server that outlived the process which started it (a SIGKILL of Node leaves it running).
 * Returns the process id it ended, or undefined when there was none.
 * Throws when the server is not an orphan: its owner lives, and the data are in use.
 */
export async function reapOrphan(dataDir: string): Promise<number | undefined> {
  const owner = await livingOwner(dataDir);
  if (owner !== undefined) {
    throw new Error(`${dataDir} is in use: process ${owner.nodePid} runs an embedded Postgres on it`);
  }
  const pgData = await realpath(join(dataDir, 'data')).catch(() => undefined);
  if (pgData === undefined) return undefined;
  const postmaster = await readPostmasterFile(pgData);
  if (postmaster === undefined || !(postmaster.pid > 1)) return undefined;
  const { pid } = postmaster;
  if (processStarted(pid) !== undefined && commandLine(pid).includes(pgData)) {
    await shutDown(pid);
    return pid;
  }
  // The file names a process that is gone, or one that got the number later; Postgres would believe the latter.
  await rm(join(pgData, 'postmaster.pid'), { force: true });
  return undefined;
}
