import type { Row } from '@mad/postgres';
import { MINUTE_MS } from '@mad/process';
import { notFound } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import type { ServerRow } from '../db/entities/server.ts';
import { METADATA } from './registration.ts';

const SERVERS_SQL = `SELECT server_id, name, host, port, sslmode, connection_budget, provisioner_secret, migrator_secret,
    master_key_version FROM provisioner.database_servers ORDER BY name`;

/** Runs one question on one server. */
export type Ask = <R = Row>(sql: string, params?: readonly unknown[]) => Promise<R[]>;

/** One of the servers, or the metadata database. */
export interface Place {
  name: string;
  /** What tenants' connections together may be; 0 for the metadata database. */
  budget: number;
  ask: Ask;
}

/** The metadata database and every server, by name; only `wanted` where one is named. Throws NOT_FOUND for another. */
export async function placesOf(
  context: Pick<ProvisionerContext, 'database' | 'connections'>,
  wanted: string,
  signal?: AbortSignal,
): Promise<Place[]> {
  const { database, connections } = context;
  const servers = await database.asSystem((tx) => tx.query<ServerRow>(SERVERS_SQL), { signal });
  const metadata: Place = {
    name: METADATA,
    budget: 0,
    ask: (sql, params) => database.asSystem((tx) => tx.query(sql, params), { signal }),
  };
  const tenants = servers.map((server): Place => ({
    name: server.name,
    budget: server.connection_budget,
    ask: <R>(sql: string, params?: readonly unknown[]) =>
      connections.asAdmin(server, async (client) => (await client.query(sql, params as unknown[])).rows as R[]),
  }));
  const places = [metadata, ...tenants].filter(({ name }) => wanted === '' || name === wanted);
  if (places.length === 0) throw notFound('server', wanted);
  return places;
}

/** The answer of each place, or why it has none: one that is away must not keep the others' from being seen. */
export async function askEach<T>(
  { logger }: Pick<ProvisionerContext, 'logger'>,
  places: readonly Place[],
  look: (place: Place) => Promise<T>,
): Promise<{ place: Place; found?: T; unavailable: string }[]> {
  return Promise.all(
    places.map(async (place) => {
      try {
        return { place, found: await look(place), unavailable: '' };
      } catch (error) {
        if (error instanceof Unavailable) return { place, unavailable: error.message };
        logger.warn({ error, server: place.name }, 'a server does not answer');
        return { place, unavailable: 'the server does not answer' };
      }
    }),
  );
}

/** A server that answers, and has not what was asked for. Its message is for people. */
class Unavailable extends Error {}

/** A kind of statement, over all databases. */
export interface StatementRow {
  text: string;
  calls: number;
  rows: number;
  total_ms: number;
  mean_ms: number;
  databases: number;
}

/**
 * Tenants are copies of one template, so that a statement has the same number in each: it is counted once for all. Texts are
 * as the extension keeps them, with $1 … in the place of values. $1 whether the metadata database is asked for, $2 limit.
 */
const statementsSql = (order: 'total_ms' | 'mean_ms'): string => `
  SELECT left(min(s.query), 2000) AS text, sum(s.calls)::float8 AS calls, sum(s.rows)::float8 AS rows,
    sum(s.total_exec_time) AS total_ms, sum(s.total_exec_time) / sum(s.calls) AS mean_ms,
    count(DISTINCT s.dbid)::int AS databases
  FROM public.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
  WHERE s.calls > 0 AND CASE WHEN $1 THEN d.datname = current_database() ELSE d.datname ~ '^mad_[a-z0-9_]+_[0-9a-f]{32}$' END
  GROUP BY s.queryid ORDER BY ${order} DESC, s.queryid LIMIT $2`;

const NOT_LOADED = '55000';
const NO_VIEW = '42P01';
const TURN_ON =
  "set shared_preload_libraries = 'pg_stat_statements' on the server, restart it, and prepare it again (CREATE EXTENSION pg_stat_statements)";

/** A server's slowest statements. */
export async function slowStatements(
  place: Place,
  order: 'total_ms' | 'mean_ms',
  limit: number,
): Promise<StatementRow[]> {
  try {
    return await place.ask<StatementRow>(statementsSql(order), [place.name === METADATA, limit]);
  } catch (error) {
    const { code } = error as { code?: string };
    if (code !== NOT_LOADED && code !== NO_VIEW) throw error;
    throw new Unavailable(`pg_stat_statements is not there: ${TURN_ON}`, { cause: error });
  }
}

/** Connections that are alike. */
export interface ConnectionRow {
  database: string;
  state: string;
  program: string;
  login: string;
  count: number;
  waiting_for_lock: number;
  longest_seconds: number;
}

const LIMITS_SQL = `SELECT current_setting('max_connections')::int AS max_connections,
  current_setting('superuser_reserved_connections')::int + current_setting('reserved_connections')::int AS reserved`;

/** An organization's sessions name it and their trace while they work: only the program's name groups. */
const CONNECTIONS_SQL = `
  SELECT datname AS database, coalesce(state, 'starting') AS state, split_part(application_name, '/', 1) AS program,
    usename AS login, count(*)::int AS count, count(*) FILTER (WHERE wait_event_type = 'Lock')::int AS waiting_for_lock,
    coalesce(max(extract(epoch FROM now() - state_change)), 0)::float8 AS longest_seconds
  FROM pg_stat_activity
  WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND (NOT $1 OR datname = current_database())
  GROUP BY 1, 2, 3, 4 ORDER BY count DESC, 1, 2, 3, 4`;

/** Who is connected to a server, and how many may be. */
export async function connectionsOf(place: Place) {
  const [limits] = await place.ask<{ max_connections: number; reserved: number }>(LIMITS_SQL);
  return { ...limits!, groups: await place.ask<ConnectionRow>(CONNECTIONS_SQL, [place.name === METADATA]) };
}

/** A database and its bytes. */
export interface SizeRow {
  server: string;
  database: string;
  bytes: number;
}

/** Every database of ours, measured at one time. */
export interface Sizes {
  at: Date;
  /** The largest first. */
  rows: SizeRow[];
  unavailable: string[];
}

/** A thousand databases are 360,000 files to look at: pages of one listing, and who asks again soon, get the same answer. */
const FRESH_MS = MINUTE_MS;

const SIZES_SQL = `SELECT datname AS database, pg_database_size(oid)::float8 AS bytes FROM pg_database
  WHERE CASE WHEN $1 THEN datname = current_database() ELSE datname ~ '^mad_[a-z0-9_]+_([0-9a-f]{32}|template_[0-9a-f]{16})$' END`;

/** Measures databases; an answer is kept for a minute. */
export function databaseSizes(context: ProvisionerContext): (server: string, signal: AbortSignal) => Promise<Sizes> {
  const known = new Map<string, { until: number; sizes: Promise<Sizes> }>();
  const measure = async (places: Place[]): Promise<Sizes> => {
    const answers = await askEach(context, places, (place) =>
      place.ask<Omit<SizeRow, 'server'>>(SIZES_SQL, [place.name === METADATA]),
    );
    const rows = answers.flatMap(({ place, found = [] }) => found.map((row) => ({ server: place.name, ...row })));
    const unavailable = answers.filter(({ found }) => found === undefined).map(({ place }) => place.name);
    return { at: new Date(), rows: rows.toSorted(bySize), unavailable };
  };
  return async (server, signal) => {
    const fresh = known.get(server);
    if (fresh && performance.now() < fresh.until) return fresh.sizes;
    // Not the first caller's signal: others may share the answer.
    signal.throwIfAborted();
    const places = await placesOf(context, server);
    const sizes = measure(places);
    known.set(server, { until: performance.now() + FRESH_MS, sizes });
    sizes.catch(() => known.delete(server));
    return sizes;
  };
}

/** The largest first; equal ones by name, so that a page's end is one place. */
export function bySize(a: SizeRow, b: SizeRow): number {
  return b.bytes - a.bytes || compare(a.server, b.server) || compare(a.database, b.database);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
