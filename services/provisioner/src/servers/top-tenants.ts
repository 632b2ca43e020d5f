import { MINUTE_MS, Rounds, type Metrics } from '@mad/process';
import type { ProvisionerContext } from '../context.ts';
import { largest } from '../domain/largest.ts';
import { ownerOfDatabase } from '../domain/names.ts';
import { askEach, placesOf, type Place } from './fleet-statistics.ts';
import { METADATA } from './registration.ts';

/** Measuring a thousand databases looks at 360,000 files: not at every look. */
const SIZE_AGE_MS = 10 * MINUTE_MS;
/** The series of all organizations that are not among the largest. */
const OTHER = 'other';

const TENANTS = `datname ~ '^mad_[a-z0-9_]+_[0-9a-f]{32}$'`;
/** From outside the databases: nobody's is woken up. */
const WORK_SQL = `SELECT datname AS database, numbackends AS sessions, active_time AS active_ms
  FROM pg_stat_database WHERE ${TENANTS}`;
const SIZES_SQL = `SELECT datname AS database, pg_database_size(oid)::float8 AS bytes FROM pg_database WHERE ${TENANTS}`;

interface Work {
  database: string;
  sessions: number;
  active_ms: number;
}

type Counted = [database: string, value: number];

export interface TopTenantsOptions {
  context: Pick<ProvisionerContext, 'database' | 'connections' | 'logger'>;
  metrics: Metrics;
  /** Organizations that have a series of their own, of each metric. */
  count: number;
  /** Time between two looks at the servers, in milliseconds. */
  everyMs: number;
}

/**
 * Shows who the largest organizations are: by sessions, by work, by size. A metric has one series for each of the largest
 * and one for all others, however many organizations there are.
 */
export class TopTenants {
  readonly #options: TopTenantsOptions;
  readonly #rounds: Rounds;
  /** By organization, as the last look found them. */
  #sessions = new Map<string, number>();
  #load = new Map<string, number>();
  #sizes = new Map<string, number>();
  #sizedAt: number | undefined;
  /** Milliseconds of work by database since the server's statistics began, and when that was read. */
  #worked = new Map<string, { activeMs: number; at: number }>();

  constructor(options: TopTenantsOptions) {
    this.#options = options;
    const { metrics, context, everyMs } = options;
    const sessions = metrics.gauge({
      name: 'tenant_top_sessions',
      help: 'Sessions in the databases of the organizations that have the most, and of all others together.',
      labelNames: ['org_id'],
      collect: () => {
        this.#show(sessions, this.#sessions);
      },
    });
    const load = metrics.gauge({
      name: 'tenant_top_load',
      help: 'Sessions at work in the databases of the busiest organizations, the mean between two looks, and of all others.',
      labelNames: ['org_id'],
      collect: () => {
        this.#show(load, this.#load);
      },
    });
    const sizes = metrics.gauge({
      name: 'tenant_top_size_bytes',
      help: 'The databases of the largest organizations, measured every ten minutes, and of all others together.',
      labelNames: ['org_id'],
      collect: () => {
        this.#show(sizes, this.#sizes);
      },
    });
    const failure = 'looking for the largest organizations failed';
    this.#rounds = new Rounds({ everyMs, logger: context.logger, failure }, () => this.#look());
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  #show(gauge: ReturnType<Metrics['gauge']>, values: ReadonlyMap<string, number>): void {
    const { top, other } = largest(values, this.#options.count);
    // Whoever fell out has no series any more.
    gauge.reset();
    for (const [org_id, value] of [...top, [OTHER, other] as const]) gauge.set({ org_id }, value);
  }

  async #look(): Promise<void> {
    const { context } = this.#options;
    const places = (await placesOf(context, '')).filter(({ name }) => name !== METADATA);
    await this.#readWork(places);
    if (this.#sizedAt !== undefined && performance.now() - this.#sizedAt < SIZE_AGE_MS) return;
    const found = await askEach(context, places, (place) => place.ask<{ database: string; bytes: number }>(SIZES_SQL));
    this.#sizes = byOrganization(
      found.flatMap(({ found: rows = [] }) => rows.map((row): Counted => [row.database, row.bytes])),
    );
    this.#sizedAt = performance.now();
  }

  async #readWork(places: readonly Place[]): Promise<void> {
    const { context } = this.#options;
    const answers = await askEach(context, places, async (place) => {
      const rows = await place.ask<Work>(WORK_SQL);
      return { rows, at: performance.now() };
    });
    const before = this.#worked;
    this.#worked = new Map();
    const sessions: Counted[] = [];
    const load: Counted[] = [];
    for (const { found } of answers) {
      for (const { database, sessions: count, active_ms: activeMs } of found?.rows ?? []) {
        const { at } = found!;
        const last = before.get(database);
        sessions.push([database, count]);
        // Less than before: the statistics began anew.
        if (last !== undefined) load.push([database, Math.max(0, activeMs - last.activeMs) / (at - last.at)]);
        this.#worked.set(database, { activeMs, at });
      }
    }
    this.#sessions = byOrganization(sessions);
    this.#load = byOrganization(load);
  }
}

/** An organization may have several databases: their sum. */
function byOrganization(values: readonly Counted[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const [database, value] of values) {
    const owner = ownerOfDatabase(database);
    if (owner !== undefined) sums.set(owner.orgId, (sums.get(owner.orgId) ?? 0) + value);
  }
  return sums;
}
