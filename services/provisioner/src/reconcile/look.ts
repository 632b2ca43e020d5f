import { createHash } from 'node:crypto';
import type { ObjectStore } from '@mad/object-store';
import type { Database } from '@mad/postgres';
import type { Logger } from '@mad/process';
import type { ServerRow } from '../db/entities/server.ts';
import { migrationsText, templateName } from '../domain/names.ts';
import {
  compareObjects,
  compareServer,
  isJudged,
  type Difference,
  type ObjectIntent,
  type ServerFacts,
  type ServerIntent,
} from '../domain/reconcile.ts';
import type { SchemaOwners } from '../servers/schema-owners.ts';
import type { ServerConnections } from '../servers/server-connections.ts';

export interface LookOptions {
  database: Database;
  connections: ServerConnections;
  owners: SchemaOwners;
  objects: ObjectStore;
  logger: Logger;
}

/** What one look found. */
export interface Look {
  differences: Difference[];
  /** Servers that did not answer: of them nothing is known. */
  unreachable: string[];
  /** How much was looked at. */
  looked: { databases: number; roles: number; objects: number };
}

/** Compares the rows with every server and the object store. Changes nothing. */
export async function look(options: LookOptions): Promise<Look> {
  const { database, owners, objects, logger } = options;
  const servers = await database.asSystem((tx) =>
    tx.query<ServerRow>(
      `SELECT server_id, name, host, port, sslmode, provisioner_secret, migrator_secret, master_key_version
       FROM provisioner.database_servers ORDER BY name`,
    ),
  );
  const seen = async (): Promise<Map<string, ServerFacts | undefined>> => {
    const facts = servers.map(async (server) => [server.name, await factsOf(options, server)] as const);
    return new Map(await Promise.all(facts));
  };
  // Before the walk: of an organization that is erased meanwhile objects may be listed that are about to go.
  const erased = await erasedOf(database);
  // Everything outside is written down before it is made: what is seen first has its row by then, if it ever has.
  const { judged, count } = await listObjects(objects, erased);
  const before = await seen();
  const { intents, live, archives } = await intentOf(options, await templatesOf(options));
  const after = await seen();
  const differences: Difference[] = [];
  const unreachable: string[] = [];
  const looked = { databases: 0, roles: 0, objects: count };
  for (const { name } of servers) {
    const [first, second] = [before.get(name), after.get(name)];
    if (first === undefined || second === undefined) {
      unreachable.push(name);
      continue;
    }
    looked.databases += first.databases.size;
    looked.roles += first.roles.size;
    const intent = intents.get(name) ?? emptyIntent(name);
    differences.push(...compareServer(intent, first, second, { schemas: owners.schemas, live }));
  }
  differences.push(...(await compareObjects({ archives, erased }, judged, (key) => objects.exists(key))));
  if (differences.length > 0) logger.warn({ differences: differences.length }, 'rows and servers differ');
  return { differences, unreachable, looked };
}

async function erasedOf(database: Database): Promise<Set<string>> {
  const rows = await database.asSystem((tx) =>
    tx.query<{ orgId: string }>('SELECT org_id AS "orgId" FROM provisioner.erasure_records'),
  );
  return new Set(rows.map(({ orgId }) => orgId));
}

/** Counts the objects of all organizations, and keeps the keys that are judged: there may be millions of others. */
export async function listObjects(
  objects: Pick<ObjectStore, 'walk'>,
  erased: ReadonlySet<string>,
): Promise<{ judged: string[]; count: number }> {
  const judged: string[] = [];
  let count = 0;
  for await (const key of objects.walk('orgs')) {
    count += 1;
    if (isJudged(key, erased)) judged.push(key);
  }
  return { judged, count };
}

/** Undefined where the server does not answer. */
async function factsOf({ connections, logger }: LookOptions, server: ServerRow): Promise<ServerFacts | undefined> {
  try {
    return await connections.asAdmin(server, async (client) => {
      const { rows: databases } = await client.query<{ name: string }>(
        `SELECT datname AS name FROM pg_database WHERE datname LIKE 'mad\\_%' ORDER BY 1`,
      );
      const { rows: roles } = await client.query<{ name: string }>(
        `SELECT rolname AS name FROM pg_roles WHERE rolname LIKE 'mad\\_%' ORDER BY 1`,
      );
      const names = (rows: { name: string }[]): Set<string> => new Set(rows.map(({ name }) => name));
      return { server: server.name, databases: names(databases), roles: names(roles) };
    });
  } catch (error) {
    logger.warn({ error, server: server.name }, 'a server does not answer');
    return undefined;
  }
}

/** The template each schema's databases are copied from now; undefined where its owner is away. */
async function templatesOf({ owners, logger }: LookOptions): Promise<Map<string, string | undefined>> {
  const templates = new Map<string, string | undefined>();
  for (const schema of owners.schemas) {
    try {
      const text = migrationsText(await owners.of(schema).migrations());
      templates.set(schema, templateName(schema, createHash('sha256').update(text).digest('hex')));
    } catch (error) {
      logger.warn({ error, schema }, "a tenant schema's owner does not answer");
      templates.set(schema, undefined);
    }
  }
  return templates;
}

interface TenantIntent {
  server: string;
  orgId: string;
  schema: string;
  database: string;
  state: ServerIntent['tenants'][number]['state'];
  busy: boolean;
  roles: string[];
}

async function intentOf({ database }: LookOptions, current: ReadonlyMap<string, string | undefined>) {
  return database.asSystem(async (tx) => {
    const tenants = await tx.query<TenantIntent>(
      `SELECT s.name AS server, t.org_id AS "orgId", t.schema, t.database_name AS database, t.state,
         o.state = 'running' OR (t.step IS NOT NULL AND t.state <> 'failed') AS busy,
         array(SELECT c.role_name FROM provisioner.tenant_credentials c
           WHERE c.org_id = t.org_id AND c.schema = t.schema ORDER BY 1) AS roles
       FROM provisioner.tenants t JOIN provisioner.database_servers s USING (server_id)
         JOIN provisioner.operations o USING (operation_id)`,
    );
    const recorded = await tx.query<{ server: string; name: string }>(
      `SELECT s.name AS server, r.object_name AS name FROM provisioner.cleanup_records r
       JOIN provisioner.database_servers s USING (server_id)`,
    );
    const stock = await tx.query<{ server: string; name: string; schema: string; state: string; template: string }>(
      `SELECT s.name AS server, k.database_name AS name, k.schema, k.state, k.template FROM provisioner.tenant_stock k
       JOIN provisioner.database_servers s USING (server_id)`,
    );
    const live = await tx.query<{ digits: string }>(
      `SELECT right(replace(operation_id::text, '-', ''), 16) AS digits FROM provisioner.operations WHERE state = 'running'`,
    );
    const archives = await tx.query<ObjectIntent['archives'][number]>(
      `SELECT object_key AS key, org_id AS "orgId", schema, backup_id AS "backupId",
         completed_at IS NOT NULL AND deleting_at IS NULL AS whole
       FROM provisioner.backups WHERE object_key <> ''`,
    );
    const names = new Set([...tenants, ...recorded, ...stock].map(({ server }) => server));
    const intents = new Map<string, ServerIntent>();
    for (const server of names) {
      const of = <T extends { server: string }>(rows: readonly T[]): T[] => rows.filter((row) => row.server === server);
      const templates = new Map(
        [...current].map(([schema, template]) => {
          const used = of(stock).filter((one) => one.schema === schema);
          const all = template === undefined ? undefined : new Set([template, ...used.map((one) => one.template)]);
          return [schema, all] as const;
        }),
      );
      const inUse = new Set(of(recorded).map(({ name }) => name));
      intents.set(server, { server, tenants: of(tenants), recorded: inUse, stock: of(stock), templates });
    }
    return { intents, live: new Set(live.map(({ digits }) => digits)), archives };
  });
}

/** Of a server nothing is said to be on: its templates are not judged. */
function emptyIntent(server: string): ServerIntent {
  return { server, tenants: [], recorded: new Set(), stock: [], templates: new Map() };
}
