import { schemaObjects, type Database, type SchemaObject } from '@mad/postgres';
import pg from 'pg';
import type { ServerRow } from '../db/entities/server.ts';
import type { TenantIndexRow } from '../db/entities/tenant-index.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import { schemaOwner } from '../domain/names.ts';
import type { TenantKey } from '../domain/plan.ts';
import { compareMigrations, compareObjects, type Difference } from '../domain/schema-difference.ts';
import type { SchemaOwners } from '../servers/schema-owners.ts';
import type { ServerConnections } from '../servers/server-connections.ts';
import type { References } from './references.ts';

const id = pg.escapeIdentifier;
const NO_SUCH_TABLE = '42P01';

export interface LookContext {
  database: Database;
  connections: ServerConnections;
  owners: SchemaOwners;
  references: References;
}

/** A tenant's database, as it is. */
export interface Looked {
  /** From its own record, oldest first. */
  applied: string[];
  version: string;
  differences: Difference[];
}

/** Runs `fn` in a tenant's database as the owner of what is in it: one connection, none of a service's. */
export function asOwnerInside<T>(
  connections: ServerConnections,
  server: ServerRow,
  { database_name: name, schema }: Pick<TenantRow, 'database_name' | 'schema'>,
  fn: (inside: pg.Client) => Promise<T>,
): Promise<T> {
  return connections.as(server, connections.adminLogin(server, name), async (inside) => {
    await inside.query(`SET ROLE ${id(schemaOwner(schema))}`);
    return fn(inside);
  });
}

/** The migrations that a database's own record says it has, oldest first. */
export async function appliedIn(inside: pg.ClientBase, schema: string): Promise<string[]> {
  try {
    const { rows } = await inside.query<{ name: string }>(
      `SELECT name FROM ${id(schema)}.migrations ORDER BY "timestamp"`,
    );
    return rows.map(({ name }) => name);
  } catch (error) {
    if ((error as { code?: string }).code === NO_SUCH_TABLE) return [];
    throw error;
  }
}

/** How a tenant's database differs from what its version and its own indexes make. */
export async function lookForDrift(
  context: LookContext,
  server: ServerRow,
  tenant: Pick<TenantRow, 'org_id' | 'schema' | 'database_name'>,
  client?: pg.ClientBase,
): Promise<Looked> {
  const { connections } = context;
  return asOwnerInside(connections, server, tenant, async (inside) => {
    const applied = await appliedIn(inside, tenant.schema);
    return driftOf(context, server, tenant, applied, await schemaObjects(inside, tenant.schema), client);
  });
}

/** The same of what was read already. */
export async function driftOf(
  { database, owners, references }: LookContext,
  server: ServerRow,
  { org_id: orgId, schema }: Pick<TenantRow, 'org_id' | 'schema'>,
  applied: string[],
  actual: SchemaObject[],
  client?: pg.ClientBase,
): Promise<Looked> {
  const known = await owners.of(schema).migrations();
  const looked = { applied, version: applied.at(-1) ?? '' };
  const strange = compareMigrations(
    applied,
    known.map(({ name }) => name),
  );
  // Of what such a record makes nobody can say anything.
  if (strange.length > 0) return { ...looked, differences: strange };
  if (applied.length === 0) {
    const [first] = known;
    const missing = { difference: 'missing', kind: 'migration', expected: first?.name ?? '', actual: '' } as const;
    return { ...looked, differences: [{ ...missing, name: first?.name ?? '' }] };
  }
  const { expected, unsettled } = await expectedOf(
    { database, owners, references },
    server,
    { orgId, schema },
    applied.length,
    client,
  );
  const differences = compareObjects(
    expected,
    actual.filter(({ kind, name }) => kind !== 'index' || !unsettled.has(name)),
  );
  return { ...looked, differences };
}

/** What a tenant with so many of the schema's migrations should consist of, and its own indexes that are under way. */
export async function expectedOf(
  { database, owners, references }: Pick<LookContext, 'database' | 'owners' | 'references'>,
  server: ServerRow,
  { orgId, schema }: TenantKey,
  migrations: number,
  client?: pg.ClientBase,
): Promise<{ expected: SchemaObject[]; unsettled: ReadonlySet<string> }> {
  const own = await database.asSystem((tx) =>
    tx.query<Pick<TenantIndexRow, 'name' | 'state' | 'definition'>>(
      'SELECT name, state, definition FROM provisioner.tenant_indexes WHERE org_id = $1 AND schema = $2',
      [orgId, schema],
    ),
  );
  const known = await owners.of(schema).migrations();
  const reference = await references.of(server, schema, known.slice(0, migrations), client);
  const settled = own.filter(({ state }) => state === 'ready');
  return {
    expected: [...reference, ...settled.map(({ name, definition }) => ({ kind: 'index', name, definition }))],
    // Under way: it may be there already, or still.
    unsettled: new Set(own.filter(({ state }) => state !== 'ready').map(({ name }) => name)),
  };
}
