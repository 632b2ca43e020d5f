import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type { ObjectStore } from '@mad/object-store';
import { clientOptions, withClient } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { listTables } from '@mad/tenancy';
import pg from 'pg';
import { provisionerMigrations } from '../db/schema.ts';
import type { ListedMigration } from '../domain/names.ts';
import { MasterKeyError, type MasterKeys } from '../secrets/master-keys.ts';
import { ArchiveError } from './archive-error.ts';
import type { ArchivedSchema, ArchiveHeader, ArchiveManifest, ArchivePlan, PlannedTable } from './archive-format.ts';
import { ArchiveReader } from './archive-reader.ts';
import { writeArchive, type ArchiveSource, type Written } from './archive-writer.ts';
import { loadArchive } from './load.ts';
import { COPY_SETTINGS, copyOut, prepareSession, sequenceValues } from './snapshot.ts';

/** Where archives of metadata are, and where the keys that go with them are: never in one object. */
export const METADATA_FOLDER = 'metadata';
export const KEYS_FOLDER = 'metadata-keys';

const NOBODY = '00000000-0000-0000-0000-000000000000';
/** Archives of metadata that are kept where nothing else is said; of keys only the newest is, so that a destroyed key is in none. */
const KEEP = 7;
/** When an archive was made, in its object's key. */
const STAMP = /^[^/]+\/(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-.*$/;

/**
 * What an archive of metadata does not hold: the keys themselves and what they seal, and what must not come to life again.
 * Digests of passwords it does hold: without them nobody could sign in after a restore.
 */
const KEPT_OUT: Readonly<Record<string, readonly string[]>> = {
  provisioner: ['data_keys', 'tenant_credentials'],
  identity: ['signing_keys', 'user_sessions'],
};
/** What the keys' own archive holds. */
const KEYS = ['data_keys', 'tenant_credentials'];

/** Whoever writes the keys' archive holds this lock of the metadata database: the later one sees what the earlier changed. */
export const KEYS_LOCK = 'mad.metadata-keys';

/** One service's schema of the metadata database. */
export interface MetadataSchema {
  name: string;
  /** All that the code has, oldest first. */
  migrations: readonly ListedMigration[];
}

export interface MetadataOptions {
  /** To the metadata database, as a login that row-level security does not bind: a superuser's. */
  url: string;
  master: MasterKeys;
  objects: ObjectStore;
  signal?: AbortSignal;
}

/** Archives of metadata, by their objects' keys, oldest first. */
export function listMetadataArchives(objects: ObjectStore): Promise<string[]> {
  return objects.list(METADATA_FOLDER);
}

/** The moment of the newest archive of metadata, to the second; undefined when there is none. */
export async function lastMetadataArchive(objects: ObjectStore): Promise<Date | undefined> {
  const newest = (await listMetadataArchives(objects)).findLast((key) => STAMP.test(key));
  return newest === undefined ? undefined : new Date(newest.replace(STAMP, '$1-$2-$3T$4:$5:$6Z'));
}

/**
 * Archives the metadata database as it is at one moment, and its keys by themselves; then removes what is older than the
 * newest `keep`, this one included. Returns the objects' keys.
 */
export async function archiveMetadata(
  options: MetadataOptions & { keep?: number },
  schemas: readonly MetadataSchema[],
): Promise<{ key: string; keysKey: string; written: Written }> {
  const { url, objects, keep = KEEP } = options;
  return inMetadata(url, async (client, role) => {
    await prepareSession(client, role);
    // Until the session ends.
    await client.query('SELECT pg_advisory_lock(hashtextextended($1, 0))', [KEYS_LOCK]);
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    const { rows } = await client.query<{ snapshot: string; at: Date; postgres: string }>(
      `SELECT pg_export_snapshot() AS snapshot, now() AS at, current_setting('server_version') AS postgres`,
    );
    const { snapshot, at, postgres } = rows[0]!;
    const plan: ArchivePlan = { snapshot_at: at.toISOString(), generation: 0, postgres, schemas: [], tables: [] };
    for (const { name, migrations } of schemas) {
      const { tables, sequences } = await listTables(url, role, name, snapshot);
      plan.schemas.push(await archivedSchema(client, name, migrations, sequences));
      plan.tables.push(
        ...tables.map((table) => ({
          schema: name,
          name: table.name,
          columns: table.columns,
          partition_of: table.partitionOf,
          bound: table.bound,
        })),
      );
    }
    const isKept = ({ schema, name }: PlannedTable): boolean => !KEPT_OUT[schema]?.includes(name);
    const isKey = ({ schema, name }: PlannedTable): boolean => schema === 'provisioner' && KEYS.includes(name);
    const stamp = stampOf(at);
    const write = (folder: string, wanted: (table: PlannedTable) => boolean, names: readonly string[]) =>
      putArchive(options, client, `${folder}/${stamp}`, {
        ...plan,
        schemas: plan.schemas.filter(({ name }) => names.includes(name)),
        tables: plan.tables.filter(wanted),
      });
    // The keys in one archive of the metadata's moment, by themselves; first, since metadata are of no use without.
    const { key: keysKey } = await write(KEYS_FOLDER, isKey, ['provisioner']);
    await removeOld(objects, KEYS_FOLDER, 1);
    const { key, written } = await write(
      METADATA_FOLDER,
      isKept,
      schemas.map(({ name }) => name),
    );
    await client.query('COMMIT');
    await removeOld(objects, METADATA_FOLDER, keep);
    return { key, keysKey, written };
  });
}

/**
 * Writes the archive of keys anew, as they are in the transaction that is open on `client`, and removes the one before;
 * nothing where keys were never archived. The caller holds `KEYS_LOCK` until the transaction ends.
 */
export async function rewriteKeys(
  options: Pick<MetadataOptions, 'master' | 'objects'>,
  client: pg.ClientBase,
): Promise<void> {
  const { objects } = options;
  if ((await objects.list(KEYS_FOLDER)).length === 0) return;
  await client.query(COPY_SETTINGS);
  const { rows } = await client.query<{ at: Date; postgres: string }>(
    `SELECT clock_timestamp() AS at, current_setting('server_version') AS postgres`,
  );
  const { at, postgres } = rows[0]!;
  const tables: PlannedTable[] = [];
  for (const name of KEYS) tables.push({ ...(await tableOf(client, name)), partition_of: '', bound: '' });
  const migrations = provisionerMigrations.map(({ migrationName, checksum }) => ({ name: migrationName, checksum }));
  const plan: ArchivePlan = {
    snapshot_at: at.toISOString(),
    generation: 0,
    postgres,
    schemas: [{ name: 'provisioner', version: migrations.at(-1)!.name, migrations, sequences: [] }],
    tables,
  };
  await putArchive(options, client, `${KEYS_FOLDER}/${stampOf(at)}`, plan);
  await removeOld(objects, KEYS_FOLDER, 1);
}

async function tableOf(client: pg.ClientBase, name: string): Promise<Omit<PlannedTable, 'partition_of' | 'bound'>> {
  const { rows } = await client.query<{ attname: string }>(
    `SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`,
    [`provisioner.${name}`],
  );
  return { schema: 'provisioner', name, columns: rows.map(({ attname }) => attname) };
}

const stampOf = (at: Date): string => at.toISOString().replace(/[-:]|\.\d+/g, '');

/** What an archive says of a schema, by the migrations its database has. Throws for one this release does not know. */
export async function archivedSchema(
  client: pg.ClientBase,
  name: string,
  known: readonly ListedMigration[],
  sequences: string[],
): Promise<ArchivedSchema> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT name FROM ${pg.escapeIdentifier(name)}.migrations ORDER BY timestamp, id`,
  );
  const migrations = rows.map((row) => {
    const found = known.find((one) => one.name === row.name);
    if (found === undefined) throw new Error(`${name} has a migration this release does not know: ${row.name}`);
    return { name: found.name, checksum: found.checksum };
  });
  return { name, version: migrations.at(-1)?.name ?? '', migrations, sequences };
}

async function putArchive(
  { master, objects, signal }: Pick<MetadataOptions, 'master' | 'objects' | 'signal'>,
  client: pg.ClientBase,
  place: string,
  plan: ArchivePlan,
): Promise<{ key: string; written: Written }> {
  const archiveId = uuidv7();
  const secret = randomBytes(32);
  const { sealed, version } = await master.seal(secret, aadOf(archiveId));
  const header: ArchiveHeader = {
    archive_id: archiveId,
    org_id: NOBODY,
    kind: 'metadata',
    key_version: version,
    sealed_key: sealed.toString('base64'),
    salt: randomBytes(32).toString('base64'),
    cipher: 'aes-256-gcm',
    compression: 'zstd',
    rows: 'copy-text',
  };
  const source: ArchiveSource = {
    plan,
    rows: (table) => copyOut(client, table),
    sequences: async () => {
      const values = [];
      for (const { name, sequences } of plan.schemas) values.push(...(await sequenceValues(client, name, sequences)));
      return values;
    },
  };
  const key = `${place}-${archiveId}`;
  let written: Written | undefined;
  const content = async function* (): AsyncGenerator<Buffer> {
    written = yield* writeArchive({ header, secret, source });
  };
  await objects.putStreamIfAbsent(key, Readable.from(content(), { highWaterMark: 1, ...(signal ? { signal } : {}) }));
  return { key, written: written! };
}

/**
 * Fills a metadata database that nobody uses with an archive: first `prepare` makes it, empty and with the archived
 * schemas' tables, then its rows are loaded and compared. Throws ArchiveError.
 */
export async function loadMetadata(
  options: MetadataOptions,
  key: string,
  prepare: (schemas: readonly ArchivedSchema[]) => Promise<void>,
): Promise<ArchiveManifest> {
  const { url, master, objects, signal = new AbortController().signal } = options;
  const archiveId = key.slice(-36);
  const stream = await objects.stream(key);
  try {
    const expected = { archiveId, orgId: NOBODY };
    const reader = await ArchiveReader.open(stream as AsyncIterable<Buffer>, expected, async (header) => {
      try {
        const sealed = { sealed: Buffer.from(header.sealed_key ?? '', 'base64'), version: header.key_version };
        return await master.open(sealed, aadOf(archiveId));
      } catch (cause) {
        if (!(cause instanceof MasterKeyError)) throw cause;
        const message = `it was sealed under another master key of version ${header.key_version}`;
        throw new ArchiveError('ARCHIVE_KEY_UNAVAILABLE', message, { cause });
      }
    });
    await prepare(reader.plan.schemas);
    return await inMetadata(url, async (client, role) => {
      // Rows of keys may be newer than the tenants they are of: those without one go. Triggers and keys between tables
      // are at rest meanwhile, which a superuser may do; the rows were whole when they were archived.
      await client.query('SET session_replication_role = replica');
      const settle = async (): Promise<void> => {
        await client.query(
          `DELETE FROM provisioner.tenant_credentials c WHERE NOT EXISTS (
             SELECT FROM provisioner.tenants t WHERE t.org_id = c.org_id AND t.schema = c.schema)`,
        );
      };
      return loadArchive(client, reader, { role, signal, onProgress: () => undefined, settle });
    });
  } finally {
    stream.destroy();
  }
}

const aadOf = (archiveId: string): string => `mad metadata archive ${archiveId}`;

async function removeOld(objects: ObjectStore, folder: string, keep: number): Promise<void> {
  const keys = await objects.list(folder);
  for (const key of keys.slice(0, Math.max(0, keys.length - keep))) await objects.delete(key);
}

function inMetadata<T>(url: string, fn: (client: pg.Client, role: string) => Promise<T>): Promise<T> {
  const options = clientOptions(url);
  return withClient({ ...options, application_name: 'mad-metadata-backup' }, (client) => fn(client, options.user!));
}
