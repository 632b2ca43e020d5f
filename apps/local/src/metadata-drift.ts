import { catalogMigrations } from '@mad/catalog';
import { identityMigrations } from '@mad/identity';
import {
  clientOptions,
  createMetadataDatabase,
  migrate,
  ownerRole,
  schemaObjects,
  withClient,
  type MigrationClass,
  type SchemaObject,
} from '@mad/postgres';
import { provisionerMigrations } from '@mad/provisioner';
import pg from 'pg';
import { METADATA_SERVICES } from './secrets.ts';

const MIGRATIONS: Readonly<Record<(typeof METADATA_SERVICES)[number], readonly MigrationClass[]>> = {
  identity: identityMigrations,
  catalog: catalogMigrations,
  provisioner: provisionerMigrations,
};

/** Where the metadata database is. */
export interface DriftPlace {
  /** A superuser's, to any database of the server. */
  adminUrl: string;
  /** The migrator's, to any database of the server. */
  migrateUrl: string;
  database: string;
}

const id = pg.escapeIdentifier;
const NAMED = 5;

function to(url: string, database: string): string {
  const target = new URL(url);
  target.pathname = `/${encodeURIComponent(database)}`;
  return target.href;
}

const inside = <T>(url: string, fn: (client: pg.Client) => Promise<T>): Promise<T> =>
  withClient(clientOptions(url), fn);

/**
 * Throws, naming objects, when a schema of the metadata database is not what its own record of migrations makes: compared
 * with a database made from nothing by the same migrations, on the same server. A schema without a record is left alone.
 */
export async function refuseMetadataDrift({ adminUrl, migrateUrl, database }: DriftPlace): Promise<void> {
  const scratch = `${database}_expected`;
  const server = to(adminUrl, 'postgres');
  const drop = (): Promise<unknown> =>
    inside(server, (client) => client.query(`DROP DATABASE IF EXISTS ${id(scratch)} WITH (FORCE)`));
  const applied = await inside(to(adminUrl, database), (client) => readApplied(client));
  await drop();
  try {
    await createMetadataDatabase(adminUrl, { database: scratch, services: METADATA_SERVICES });
    const differing: string[] = [];
    for (const [schema, names] of applied) {
      const migrations = MIGRATIONS[schema];
      const known = new Set(migrations.map(({ migrationName }) => migrationName));
      const strange = names.filter((name) => !known.has(name));
      if (strange.length > 0) {
        differing.push(...strange.map((name) => `${schema}: migration ${name} is unexpected`));
        continue;
      }
      const url = to(migrateUrl, scratch);
      // Exactly these: one that came into the trail before others that ran already is still to come here.
      const ran = migrations.filter(({ migrationName }) => names.includes(migrationName));
      await migrate({ url, schema, ownerRole: ownerRole(schema), migrations: ran });
      const read = (name: string): Promise<SchemaObject[]> =>
        inside(to(adminUrl, name), (client) => schemaObjects(client, schema));
      differing.push(...differences(await read(scratch), await read(database)).map((one) => `${schema}: ${one}`));
    }
    if (differing.length === 0) return;
    const more = differing.length > NAMED ? `; and ${differing.length - NAMED} more` : '';
    throw new Error(`${database} is not what its migrations make: ${differing.slice(0, NAMED).join('; ')}${more}`);
  } finally {
    await drop();
  }
}

/** The migrations each schema's own record says it has, oldest first. */
async function readApplied(client: pg.ClientBase): Promise<[(typeof METADATA_SERVICES)[number], string[]][]> {
  const found: [(typeof METADATA_SERVICES)[number], string[]][] = [];
  for (const schema of METADATA_SERVICES) {
    const table = `${id(schema)}.migrations`;
    const { rows } = await client.query<{ there: boolean }>('SELECT to_regclass($1) IS NOT NULL AS there', [table]);
    if (!rows[0]!.there) continue;
    const names = await client.query<{ name: string }>(`SELECT name FROM ${table} ORDER BY "timestamp"`);
    if (names.rows.length > 0) found.push([schema, names.rows.map(({ name }) => name)]);
  }
  return found;
}

/** Each object by which they differ, in words. */
function differences(expected: readonly SchemaObject[], actual: readonly SchemaObject[]): string[] {
  const keyOf = ({ kind, name }: SchemaObject): string => `${kind} ${name}`;
  const there = new Map(actual.map((one) => [keyOf(one), one.definition]));
  const wanted = new Set(expected.map(keyOf));
  return [
    ...expected.flatMap((one) => {
      const definition = there.get(keyOf(one));
      if (definition === one.definition) return [];
      return [`${keyOf(one)} is ${definition === undefined ? 'missing' : 'different'}`];
    }),
    ...actual.flatMap((one) => (wanted.has(keyOf(one)) ? [] : [`${keyOf(one)} is unexpected`])),
  ];
}
