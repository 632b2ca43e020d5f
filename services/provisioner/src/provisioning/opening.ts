import type pg from 'pg';
import type { ServerRow } from '../db/entities/server.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import { schemaApp, schemaOwner, schemaReader } from '../domain/names.ts';
import type { RestoredState } from '../domain/plan.ts';
import { Gone } from '../operations/stops.ts';
import { makeLogins, makeMissingLogins, type LoginRole } from '../servers/login-roles.ts';
import type { ServerConnections } from '../servers/server-connections.ts';
import * as database from '../servers/tenant-database.ts';
import * as rights from '../servers/write-rights.ts';

/** A tenant's database, where it is, and who uses it. */
export interface Opened {
  tenant: Pick<TenantRow, 'schema' | 'database_name'>;
  server: ServerRow;
  logins: readonly LoginRole[];
}

export const namesOf = ({ logins }: Pick<Opened, 'logins'>): string[] => logins.map(({ name }) => name);

const rolesOf = (schema: string): rights.SchemaRoles => ({
  owner: schemaOwner(schema),
  app: schemaApp(schema),
  reader: schemaReader(schema),
});

/** Throws Gone where the server has lost the tenant's database: only a backup brings it back. */
export async function requireDatabase(client: pg.ClientBase, { tenant, server }: Opened): Promise<void> {
  if (await database.databaseExists(client, tenant.database_name)) return;
  throw new Gone(`${tenant.database_name} is not on ${server.name} any more: restore it from a backup`);
}

/** The logins read, and can write nothing any more; what they had begun is ended. Throws Gone. Repeatable. */
export async function closeWrites(connections: ServerConnections, client: pg.ClientBase, one: Opened): Promise<void> {
  await requireDatabase(client, one);
  await makeMissingLogins(client, one.logins);
  await letOnlyRead(connections, client, one);
  await rights.endWrites(client, one.tenant.database_name, namesOf(one));
}

/** The logins write again. Throws Gone. Repeatable. */
export async function openWrites(connections: ServerConnections, client: pg.ClientBase, one: Opened): Promise<void> {
  const { tenant, server } = one;
  const roles = rolesOf(tenant.schema);
  await requireDatabase(client, one);
  await makeMissingLogins(client, one.logins);
  await rights.letWrite(client, namesOf(one), roles);
  if (!(await rights.hasReader(client, roles.reader))) return;
  await connections.as(server, connections.adminLogin(server, tenant.database_name), (inside) =>
    rights.revokeReading(inside, tenant.schema, roles),
  );
}

/**
 * Gives a database that nobody is in to its logins, which are made where there are none, as far as the tenant's state lets
 * them: to write, to read, or not at all. Throws when the wall around it does not stand. Repeatable.
 */
export async function openAs(
  connections: ServerConnections,
  client: pg.ClientBase,
  one: Opened,
  state: RestoredState,
): Promise<void> {
  const { schema, database_name: name } = one.tenant;
  if (state === 'ready') {
    await database.admitLogins(client, name, schemaApp(schema), one.logins);
    return database.checkWall(client, name, schemaApp(schema), namesOf(one));
  }
  await makeLogins(client, one.logins);
  // Whoever resumes it gives them their rights.
  if (state === 'suspended') return database.checkWall(client, name, schemaApp(schema), []);
  await letOnlyRead(connections, client, one);
  await database.openConnections(client, name, namesOf(one));
  await database.checkWall(client, name, schemaReader(schema), namesOf(one));
}

async function letOnlyRead(connections: ServerConnections, client: pg.ClientBase, one: Opened): Promise<void> {
  const { tenant, server } = one;
  const roles = rolesOf(tenant.schema);
  await rights.ensureReader(client, roles.reader);
  await connections.as(server, connections.adminLogin(server, tenant.database_name), (inside) =>
    rights.grantReading(inside, tenant.schema, roles),
  );
  await rights.letRead(client, namesOf(one), roles);
}
