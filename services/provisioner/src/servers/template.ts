import { createHash } from 'node:crypto';
import { MINUTE_MS } from '@mad/process';
import pg from 'pg';
import type { ServerRow } from '../db/entities/server.ts';
import {
  migrationsText,
  schemaApp,
  schemaOwner,
  templateName,
  versionOf,
  type ListedMigration,
} from '../domain/names.ts';
import { removeDatabase } from './remove-database.ts';
import type { SchemaOwner } from './schema-owners.ts';
import type { ServerConnections } from './server-connections.ts';
import { databaseExists, lockByName, unlockByName, whileConnectable } from './tenant-database.ts';

const id = pg.escapeIdentifier;
/** A template takes as long as its migrations; another provisioner may be making it. */
const LOCK_WAIT_MS = 5 * MINUTE_MS;

export interface TemplateOptions {
  connections: ServerConnections;
  server: ServerRow;
  schema: string;
  owner: SchemaOwner;
  /** Told the name of what is about to be made, before it is made. */
  remember: (name: string) => Promise<void>;
  /** Told that it is complete and stays. */
  keep: (name: string) => Promise<void>;
}

/**
 * The template of the schema's newest version on this server, made when missing by the schema's owner. Nobody can
 * connect to a finished one, because any session would stop it from being copied.
 */
export async function ensureTemplate(
  client: pg.ClientBase,
  options: TemplateOptions,
): Promise<{ template: string; version: string }> {
  const migrations = await options.owner.migrations();
  const template = templateOf(options.schema, migrations);
  const version = versionOf(migrations);
  if (await databaseExists(client, template)) return { template, version };
  const lock = `mad.template.${template}`;
  await lockByName(client, lock, LOCK_WAIT_MS);
  try {
    if (!(await databaseExists(client, template))) await makeTemplate(client, template, migrations, options);
  } finally {
    await unlockByName(client, lock);
  }
  return { template, version };
}

/** The template of the schema's newest version, if this server has it. */
export async function findTemplate(
  client: pg.ClientBase,
  schema: string,
  owner: SchemaOwner,
): Promise<string | undefined> {
  const template = templateOf(schema, await owner.migrations());
  return (await databaseExists(client, template)) ? template : undefined;
}

function templateOf(schema: string, migrations: readonly ListedMigration[]): string {
  return templateName(schema, createHash('sha256').update(migrationsText(migrations)).digest('hex'));
}

async function makeTemplate(
  client: pg.ClientBase,
  template: string,
  migrations: readonly ListedMigration[],
  { connections, server, schema, owner, remember, keep }: TemplateOptions,
): Promise<void> {
  const draft = `${template}_draft`;
  await remember(draft);
  await buildDatabase(client, draft, versionOf(migrations), { connections, server, schema, owner });
  await client.query(`ALTER DATABASE ${id(draft)} ALLOW_CONNECTIONS false`);
  await client.query('SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1', [draft]);
  await client.query(`ALTER DATABASE ${id(draft)} RENAME TO ${id(template)}`);
  await keep(draft);
}

/**
 * Makes an empty database of a version of the schema, from nothing: by the owner's migrations. What an earlier attempt left
 * under the name goes first. PUBLIC has no rights on it.
 */
export async function buildDatabase(
  client: pg.ClientBase,
  database: string,
  version: string,
  { connections, server, schema, owner }: Pick<TemplateOptions, 'connections' | 'server' | 'schema' | 'owner'>,
): Promise<void> {
  await removeDatabase(connections, server, client, database);
  await client.query(`CREATE DATABASE ${id(database)} TEMPLATE template0 STRATEGY WAL_LOG`);
  await client.query(`REVOKE ALL ON DATABASE ${id(database)} FROM PUBLIC`);
  // For extensions that need no superuser.
  await client.query(`GRANT CREATE ON DATABASE ${id(database)} TO ${id(schemaOwner(schema))}`);
  await connections.as(server, connections.adminLogin(server, database), (inside) => prepareSchema(inside, schema));
  const migrator = await connections.migratorLogin(server, database);
  await whileConnectable(client, database, migrator.user, async () => {
    const reached = await owner.migrate(server, migrator, schemaOwner(schema), version);
    if (reached.version !== version) throw new Error(`${database} reached ${reached.version} instead of ${version}`);
  });
  await client.query(`REVOKE CREATE ON DATABASE ${id(database)} FROM ${id(schemaOwner(schema))}`);
}

/** The schema, owned by its owner; what the owner makes in it, now and later, is open to the role with the grants. */
async function prepareSchema(client: pg.ClientBase, schema: string): Promise<void> {
  const [target, owner, app] = [schema, schemaOwner(schema), schemaApp(schema)].map(id);
  const byDefault = `ALTER DEFAULT PRIVILEGES FOR ROLE ${owner}`;
  await client.query(`
    CREATE SCHEMA ${target} AUTHORIZATION ${owner};
    SET ROLE ${owner};
    GRANT USAGE ON SCHEMA ${target} TO ${app};
    ${byDefault} IN SCHEMA ${target} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ${app};
    ${byDefault} IN SCHEMA ${target} GRANT USAGE, SELECT ON SEQUENCES TO ${app};
    ${byDefault} IN SCHEMA ${target} GRANT EXECUTE ON FUNCTIONS TO ${app};
    ${byDefault} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    RESET ROLE;`);
}
