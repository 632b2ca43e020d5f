import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { JsonWebKey } from 'node:crypto';
import { catalogMigrations, eraseCatalogRows } from '@mad/catalog';
import { eraseIdentityRows, identityMigrations } from '@mad/identity';
import { openObjectStore, type ObjectStore } from '@mad/object-store';
import {
  clientOptions,
  createMetadataDatabase,
  migrate,
  ownerRole,
  statementsOn,
  withClient,
  type MigrationClass,
} from '@mad/postgres';
import { readEnv } from '@mad/process';
import {
  archiveMetadata,
  erasuresToReplay,
  KEYS_FOLDER,
  loadMetadata,
  provisionerMigrations,
  readMasterKeys,
  replayErasure,
  type MasterKeys,
  type MetadataSchema,
} from '@mad/provisioner';
import pg from 'pg';
import { METADATA_SERVICES, type Secrets } from './secrets.ts';

/** Where the metadata of an installation is, and what opens its archives. */
export interface MetadataPlace {
  /** A superuser's, to the server's database postgres. */
  adminUrl: string;
  /** The migrator's, to any database of that server. */
  migrateUrl: string;
  database: string;
  master: MasterKeys;
  objectStoreUrl: string;
  /** Public keys that signed the records of erasures. */
  erasureKeys: readonly JsonWebKey[];
}

const MIGRATIONS: Readonly<Record<(typeof METADATA_SERVICES)[number], readonly MigrationClass[]>> = {
  identity: identityMigrations,
  catalog: catalogMigrations,
  provisioner: provisionerMigrations,
};

const id = pg.escapeIdentifier;

/** The place of the local system in `home`. */
export function localPlace(
  home: string,
  { masterKeys, signingKeys }: Secrets,
  where: Pick<MetadataPlace, 'adminUrl' | 'migrateUrl' | 'database'>,
): MetadataPlace {
  const objectStoreUrl = process.env.OBJECT_STORE_URL ?? pathToFileURL(join(home, 'objects')).href;
  const erasureKeys = [signingKeys.provisioner.publicJwk];
  // As provisioner of this system reads them: what is set outside wins.
  const master = readEnv({ PROVISIONER_MASTER_KEY: masterKeys.provisioner, ...process.env }, readMasterKeys);
  return { ...where, master, objectStoreUrl, erasureKeys };
}

function sorted(migrations: readonly MigrationClass[]): MigrationClass[] {
  return [...migrations].sort((a, b) => a.time - b.time);
}

const schemas: MetadataSchema[] = METADATA_SERVICES.map((name) => ({
  name,
  migrations: sorted(MIGRATIONS[name]).map(({ migrationName, checksum }) => ({ name: migrationName, checksum })),
}));

/** The URL of another database of the same server, under the same login. */
export function databaseUrl(url: string, database: string): string {
  const target = new URL(url);
  target.pathname = `/${encodeURIComponent(database)}`;
  return target.href;
}

/** What a backup of metadata came to. */
export interface MetadataBackup {
  archive: string;
  keys: string;
  rows: number;
  sizeBytes: number;
}

/** What of a place is needed to archive it. */
export type ArchivedPlace = Omit<MetadataPlace, 'migrateUrl' | 'erasureKeys'>;

/** Archives the metadata database, and its keys by themselves; `keep` archives of metadata stay, this one included. */
export async function backUpMetadata(
  place: ArchivedPlace,
  more: { keep?: number; signal?: AbortSignal } = {},
): Promise<MetadataBackup> {
  const options = { ...opened(place), url: databaseUrl(place.adminUrl, place.database), ...more };
  const { key, keysKey, written } = await archiveMetadata(options, schemas);
  const rows = written.manifest.tables.reduce((sum, table) => sum + table.rows, 0);
  return { archive: key, keys: keysKey, rows, sizeBytes: written.sizeBytes };
}

/** Restores an archive into a database of its own, compares every row, drops that database. Returns the rows. */
export async function verifyMetadata(place: MetadataPlace, archive: string): Promise<number> {
  const scratch = `${place.database}_verify`;
  await inPostgres(place, (client) => client.query(`DROP DATABASE IF EXISTS ${id(scratch)} WITH (FORCE)`));
  try {
    return await restoreInto(place, archive, scratch);
  } finally {
    await inPostgres(place, (client) => client.query(`DROP DATABASE IF EXISTS ${id(scratch)} WITH (FORCE)`));
  }
}

/**
 * Restores an archive and the newest keys into a new database, erases again what was erased since, and puts that in the
 * metadata's place. Nobody may be at work. What was there is kept under the name this returns; undefined when nothing was.
 */
export async function restoreMetadata(
  place: MetadataPlace,
  archive: string,
): Promise<{ rows: number; replaced: string | undefined; erased: number }> {
  const next = `${place.database}_next`;
  await inPostgres(place, (client) => client.query(`DROP DATABASE IF EXISTS ${id(next)} WITH (FORCE)`));
  const rows = await restoreInto(place, archive, next);
  const keys = (await opened(place).objects.list(KEYS_FOLDER)).at(-1);
  if (keys === undefined) throw new Error('there is no archive of keys: without them no tenant could be opened');
  await loadMetadata({ ...opened(place), url: databaseUrl(place.adminUrl, next) }, keys, async () => undefined);
  const erased = await eraseAgain(place, next);
  return inPostgres(place, async (client) => {
    const { rowCount } = await client.query('SELECT FROM pg_database WHERE datname = $1', [place.database]);
    // To the millisecond: two restores may follow each other within a second.
    const stamp = new Date().toISOString().replace(/\D/g, '');
    const replaced = rowCount === 0 ? undefined : `${place.database}_${stamp}`;
    await client.query('BEGIN');
    if (replaced !== undefined) await client.query(`ALTER DATABASE ${id(place.database)} RENAME TO ${id(replaced)}`);
    await client.query(`ALTER DATABASE ${id(next)} RENAME TO ${id(place.database)}`);
    await client.query('COMMIT');
    return { rows, replaced, erased };
  });
}

/** Restores an archive, and the newest keys where there are any, into a new database of that name. */
export async function loadBeside(place: MetadataPlace, archive: string, database: string): Promise<void> {
  await inPostgres(place, (client) => client.query(`DROP DATABASE IF EXISTS ${id(database)} WITH (FORCE)`));
  await restoreInto(place, archive, database);
  const keys = (await opened(place).objects.list(KEYS_FOLDER)).at(-1);
  if (keys === undefined) return;
  await loadMetadata({ ...opened(place), url: databaseUrl(place.adminUrl, database) }, keys, async () => undefined);
}

/** Nothing that was erased comes back with an older archive. Returns how many organizations it was done to. */
async function eraseAgain(place: MetadataPlace, database: string): Promise<number> {
  const erasures = await erasuresToReplay(opened(place).objects, place.erasureKeys);
  return withClient(clientOptions(databaseUrl(place.adminUrl, database)), async (client) => {
    const tx = statementsOn(client);
    for (const signed of erasures) {
      const { org_id: orgId } = signed.record;
      await client.query('BEGIN');
      await replayErasure(tx, signed);
      await eraseIdentityRows(tx, orgId);
      while (!(await eraseCatalogRows(tx, orgId)).done);
      await client.query('COMMIT');
    }
    return erasures.length;
  });
}

function opened({ master, objectStoreUrl }: ArchivedPlace): { master: MasterKeys; objects: ObjectStore } {
  return { master, objects: openObjectStore(objectStoreUrl) };
}

/** Makes the database with the archived schemas' tables, and fills it. The archive's release may be older than this one. */
async function restoreInto(place: MetadataPlace, archive: string, database: string): Promise<number> {
  const { adminUrl, migrateUrl } = place;
  const options = { ...opened(place), url: databaseUrl(adminUrl, database) };
  const migrateTo = async (versions: Readonly<Record<string, string | undefined>>): Promise<void> => {
    for (const schema of METADATA_SERVICES) {
      const target = versions[schema];
      const more = target === undefined ? {} : { to: target };
      const url = databaseUrl(migrateUrl, database);
      await migrate({ url, schema, ownerRole: ownerRole(schema), migrations: MIGRATIONS[schema], ...more });
    }
  };
  const manifest = await loadMetadata(options, archive, async (archived) => {
    for (const { name, migrations } of archived) {
      const known = schemas.find((one) => one.name === name)?.migrations ?? [];
      const strange = migrations.find((one, index) => known[index]?.checksum !== one.checksum);
      if (strange !== undefined) throw new Error(`${name}: ${strange.name} is not a migration of this release`);
    }
    await createMetadataDatabase(adminUrl, { database, services: METADATA_SERVICES });
    await migrateTo(Object.fromEntries(archived.map(({ name, version }) => [name, version])));
  });
  await migrateTo({});
  return manifest.tables.reduce((sum, table) => sum + table.rows, 0);
}

const inPostgres = <T>({ adminUrl }: MetadataPlace, fn: (client: pg.Client) => Promise<T>): Promise<T> =>
  withClient(clientOptions(adminUrl), fn);
