import { setTimeout as delay } from 'node:timers/promises';
import { SECOND_MS } from '@mad/process';
import { processStarted } from './owner-file.ts';

const POLL_MS = 10;

/** From kind to rude. SIGINT ends sessions and writes a checkpoint, SIGQUIT leaves recovery to the next start. */
const STEPS: readonly { signal: NodeJS.Signals; waitMs: number }[] = [
  { signal: 'SIGINT', waitMs: 20 * SECOND_MS },
  { signal: 'SIGQUIT', waitMs: 5 * SECOND_MS },
  { signal: 'SIGKILL', waitMs: 5 * SECOND_MS },
];

async function ended(pid: number, waitMs: number): Promise<boolean> {
  const deadline = Date.now() + waitMs;
  while (processStarted(pid) !== undefined) {
    if (Date.now() > deadline) return false;
    await delay(POLL_MS);
  }
  return true;
}

/** Shuts the postmaster `pid` down and returns once it is gone. */
export async function shutDown(pid: number): Promise<void> {
  for (const { signal, waitMs } of STEPS) {
    try {
      process.kill(pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return;
      throw error;
    }
    if (await ended(pid, waitMs)) return;
  }
  throw new Error(`the Postgres server with process id ${pid} does not end`);
}
