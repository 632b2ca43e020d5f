import { setTimeout as delay } from 'node:timers/promises';
import { SECOND_MS } from '@mad/process';
import type pg from 'pg';
import type { Line } from './row.ts';
import type { BenchFleet } from './tenant-fleet.ts';

/** What provisioner gives a server unless told otherwise. */
export const BUDGET = 80;
/** What a server keeps beside it for administration, unless told otherwise. */
const RESERVE = 5;
const SAMPLE_EVERY_MS = 100;
/** What a peer has closed is soon gone from the server. */
const GONE_WITHIN_MS = 30 * SECOND_MS;

/** The most backends that any look saw. */
export interface Backends {
  /** Ours, by their names. */
  ours: number;
  /** All in the tenants' databases, whoever's, as Postgres counts them, while nobody but ours was at work. */
  numbackends: number;
  /** Looks of the second kind. */
  samples: number;
}

/** What is promised of them. */
export function backendLines(name: string, { ours, numbackends }: Backends, notes: Line['notes']): Line[] {
  const line = (what: string, atMost: number, most: number): Line => ({
    name: `${name}-${what}`,
    unit: 'at most',
    target: { of: 'value', atMost },
    ours: [most],
    notes,
  });
  return [line('backends', BUDGET, ours), line('numbackends', BUDGET + RESERVE, numbackends)];
}

/** Counts backends again and again. */
export interface BackendWatch {
  /** Runs what has the server to itself, once those of others are gone: then every backend counts. */
  alone<T>(fn: () => Promise<T>): Promise<T>;
  stop(): Promise<Backends>;
}

/** Looks every 100 ms until it is stopped. */
export function watchBackends({ admin, routes }: BenchFleet): BackendWatch {
  const most: Backends = { ours: 0, numbackends: 0, samples: 0 };
  const databases = routes.map(({ database }) => database);
  let alone = false;
  let stopped = false;
  const running = (async () => {
    while (!stopped) {
      const before = alone;
      const { rows } = await admin.query<{ ours: number; numbackends: number }>(
        `SELECT (SELECT count(*) FROM pg_stat_activity WHERE starts_with(application_name, 'bench-'))::int AS ours,
           (SELECT sum(numbackends) FROM pg_stat_database WHERE datname = ANY ($1))::int AS numbackends`,
        [databases],
      );
      most.ours = Math.max(most.ours, rows[0]!.ours);
      if (before && alone) {
        most.numbackends = Math.max(most.numbackends, rows[0]!.numbackends);
        most.samples += 1;
      }
      await delay(SAMPLE_EVERY_MS);
    }
  })();
  // Where the row fails its connection is closed meanwhile, and its own error is what is told.
  running.catch(() => undefined);
  return {
    async alone(fn) {
      await othersGone(admin, databases);
      alone = true;
      try {
        return await fn();
      } finally {
        alone = false;
      }
    },
    async stop() {
      stopped = true;
      await running;
      return most;
    },
  };
}

/** Waits until no client but ours is in these databases. Throws, with their names, when they stay. */
async function othersGone(admin: pg.Client, databases: string[]): Promise<void> {
  // The fleet's own results looks after its tenants now and then, and keeps for minutes what it opened: not what is measured.
  await admin.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND datname = ANY ($1) AND starts_with(application_name, 'mad-')`,
    [databases],
  );
  for (const until = performance.now() + GONE_WITHIN_MS; ; await delay(SAMPLE_EVERY_MS / 10)) {
    const { rows } = await admin.query<{ who: string }>(
      `SELECT format('%s as %s in %s', application_name, usename, datname) AS who FROM pg_stat_activity
       WHERE backend_type = 'client backend' AND datname = ANY ($1) AND NOT starts_with(application_name, 'bench-')`,
      [databases],
    );
    if (rows.length === 0) return;
    if (performance.now() >= until) throw new Error(`${rows.length} others stay: ${rows[0]!.who}`);
  }
}
