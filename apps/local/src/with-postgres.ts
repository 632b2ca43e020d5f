import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { startEmbeddedPostgres, superuserUrl } from '@mad/embedded-postgres';
import { processStillRuns, type LocalState } from './state-file.ts';

/** The state of the system that runs in `home`, undefined when none does. */
export function runningState(home: string): LocalState | undefined {
  try {
    const state = JSON.parse(readFileSync(join(home, 'local.json'), 'utf8')) as LocalState;
    return processStillRuns(state.pid) ? state : undefined;
  } catch {
    return undefined;
  }
}

/** Runs `fn` with the Postgres server of `home`: the running system's, or one started for as long as `fn` runs. */
export async function withPostgres<T>(home: string, fn: (adminUrl: string, port: number) => Promise<T>): Promise<T> {
  const dataDir = join(home, 'postgres');
  const port = runningState(home)?.postgres.port;
  if (port) return fn(await superuserUrl(dataDir, port), port);
  const postgres = await startEmbeddedPostgres({ dataDir });
  try {
    return await fn(postgres.adminUrl, postgres.port);
  } finally {
    await postgres.stop();
  }
}
