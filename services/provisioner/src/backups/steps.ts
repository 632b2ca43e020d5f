import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type pg from 'pg';
import { copyName, replacedName, schemaOwner, type ListedMigration } from '../domain/names.ts';
import type { RestoredState, StepName } from '../domain/plan.ts';
import { buildOwnIndexes } from '../indexes/own-indexes.ts';
import { lockHeld, noteResult, type Held } from '../operations/lease.ts';
import { Cancelled } from '../operations/stops.ts';
import { appendChange } from '../provisioning/changes.ts';
import { namesOf, openAs } from '../provisioning/opening.ts';
import type { Step, StepContext, Subject } from '../provisioning/steps.ts';
import { findDataKey, prepareDataKey, unwrapDataKey } from '../secrets/data-keys.ts';
import * as server from '../servers/tenant-database.ts';
import { buildDatabase } from '../servers/template.ts';
import { ArchiveError } from './archive-error.ts';
import type { ArchiveHeader } from './archive-format.ts';
import { ArchiveReader } from './archive-reader.ts';
import { writeArchive, type Written } from './archive-writer.ts';
import { completeBackup, findBackup, noteKey, noteTry } from './backup-rows.ts';
import { loadArchive } from './load.ts';
import { withSnapshot } from './snapshot.ts';
import { watched } from './watched.ts';

const MAX_REASON_LENGTH = 500;

/** What operations with a backup are told. */
export interface BackupParams {
  backup_id: string;
  /** How long the replaced database is kept, in milliseconds. */
  keep_ms?: number;
  /** Which table is brought back, where only one is. */
  table?: string;
  /** What the tenant was when its restore began, and is afterwards. */
  state?: RestoredState;
}

const paramsOf = ({ params }: Held): BackupParams => params as unknown as BackupParams;

/** The steps of making, trying and restoring backups. Each may be begun anew after any crash. */
export const BACKUP_STEPS = {
  async write_archive(context, client, { tenant, server: place }, held, stop) {
    const { database, master, connections, owners, objects } = context;
    const { orgId, schema } = held;
    const { backup_id: backupId } = paramsOf(held);
    const backup = await findBackup(database, backupId);
    if (backup.completed_at !== null) return;
    // What an attempt before left: a key gets content once only, and each attempt has a key of its own.
    if (backup.object_key !== '') await objects.delete(backup.object_key);
    const objectKey = `orgs/${orgId}/backups/${backupId}/${randomBytes(8).toString('hex')}`;
    const prepared = await prepareDataKey((fn) => database.asSystem(fn), master, orgId);
    const dataKey = await database.asSystem((tx) => noteKey(tx, master, held, prepared, backupId, objectKey));
    const header: ArchiveHeader = {
      archive_id: backupId,
      org_id: orgId,
      kind: 'tenant',
      key_version: dataKey.version,
      salt: randomBytes(32).toString('base64'),
      cipher: 'aes-256-gcm',
      compression: 'zstd',
      rows: 'copy-text',
    };
    const login = await connections.migratorLogin(place, tenant.database_name);
    const role = schemaOwner(schema);
    const snapshot = { connections, server: place, login, role, schema, owner: owners.of(schema) };
    const { generation } = tenant;
    const written = await server.whileConnectable(client, tenant.database_name, login.user, () =>
      watched(database, held, stop, (progress, signal) =>
        withSnapshot({ ...snapshot, generation, signal }, async (source, guess) => {
          progress.total = guess;
          let what: Written | undefined;
          const archive = writeArchive({
            header,
            secret: dataKey.key,
            source,
            onProgress: (bytes) => (progress.done = bytes),
          });
          const content = Readable.from(
            (async function* () {
              what = yield* archive;
            })(),
            { highWaterMark: 1 },
          );
          const giveUp = (): void => void content.destroy(signal.reason as Error);
          signal.addEventListener('abort', giveUp);
          try {
            signal.throwIfAborted();
            await objects.putStreamIfAbsent(objectKey, content);
          } finally {
            signal.removeEventListener('abort', giveUp);
          }
          return what!;
        }),
      ),
    );
    await database.asSystem(async (tx) => {
      await lockHeld(tx, held);
      await completeBackup(tx, backupId, written);
      const { manifest, sizeBytes } = written;
      const rows = manifest.tables.reduce((sum, table) => sum + table.rows, 0);
      await noteResult(tx, held, { backup_id: backupId, rows, size_bytes: sizeBytes });
    });
  },

  async build_copy(context, client, { server: place }, held, stop) {
    const { connections, owners } = context;
    const owner = owners.of(held.schema);
    const build = async (reader: ArchiveReader): Promise<void> => {
      const [archived] = reader.plan.schemas;
      checkMigrations(archived!.migrations, await owner.migrations());
      const name = copyName(held.schema, held.operationId);
      const { schema } = held;
      await buildDatabase(client, name, archived!.version, { connections, server: place, schema, owner });
      const login = await connections.migratorLogin(place, name);
      const partitions = reader.plan.tables.filter((table) => table.partition_of !== '');
      await server.whileConnectable(client, name, login.user, () =>
        owner.makePartitions(
          place,
          login,
          schemaOwner(schema),
          partitions.map((table) => ({ name: table.name, partitionOf: table.partition_of, bound: table.bound })),
        ),
      );
    };
    await tried(context, held, stop, () => reading(context, held, stop, build));
  },

  async load_copy(context, client, { server: place }, held, stop) {
    const { database, connections } = context;
    const { backup_id: backupId } = paramsOf(held);
    const { raw_bytes: total } = await findBackup(database, backupId);
    const login = await connections.migratorLogin(place, copyName(held.schema, held.operationId));
    await tried(context, held, stop, () =>
      server.whileConnectable(client, login.database, login.user, () =>
        watched(database, held, stop, (progress, signal) =>
          reading(context, held, signal, (reader) =>
            connections.as(place, login, (inside) =>
              loadArchive(inside, reader, {
                role: schemaOwner(held.schema),
                signal,
                onProgress: (bytes) => Object.assign(progress, { done: bytes, total }),
              }),
            ),
          ),
        ),
      ),
    );
    await database.asSystem((tx) => noteTry(tx, backupId, ''));
  },

  async drop_copy({ database }, client, _subject, held) {
    await server.dropDatabase(client, copyName(held.schema, held.operationId));
    await database.asSystem((tx) => noteResult(tx, held, { backup_id: paramsOf(held).backup_id }));
  },

  async migrate_copy(context, client, subject, held) {
    const name = copyName(held.schema, held.operationId);
    await toNewest(context, client, subject, held, name);
    // While the organization still works in the one that is about to be replaced.
    await buildOwnIndexes(context, subject.server, held, name);
  },

  async swap_in(context, client, subject, held) {
    const { database, connections } = context;
    const { tenant } = subject;
    const { schema, operationId } = held;
    const [copy, replaced] = [copyName(schema, operationId), replacedName(schema, operationId)];
    await database.asSystem((tx) => beginSwap(tx, held, tenant.server_id, replaced));
    if (await server.databaseExists(client, copy)) {
      if (await server.databaseExists(client, tenant.database_name)) {
        await server.closeConnections(client, tenant.database_name, namesOf(subject));
        await server.exchange(client, { current: tenant.database_name, replaced, next: copy });
      } else {
        // Lost: there is nothing to keep.
        await server.renameDatabase(client, copy, tenant.database_name);
      }
    }
    // Nobody is let in before the restored database is whole, and the wall stands.
    const done = await toNewest(context, client, subject, held, tenant.database_name);
    await openAs(connections, client, subject, paramsOf(held).state ?? 'ready');
    return { schemaVersion: done.version, fingerprint: done.fingerprint };
  },
} satisfies Partial<Record<StepName, Step>>;

/** Notes why a backup could not be restored, unless the try itself was given up. */
export async function tried<T>(
  { database }: StepContext,
  held: Held,
  stop: AbortSignal,
  fn: () => Promise<T>,
): Promise<T> {
  try {
    return await fn();
  } catch (error) {
    if (!stop.aborted && !(error instanceof Cancelled)) {
      const reason = error instanceof Error ? error.message : String(error);
      await database.asSystem((tx) => noteTry(tx, paramsOf(held).backup_id, reason.slice(0, MAX_REASON_LENGTH)));
    }
    throw error;
  }
}

/** Routers are told, and the database that is about to be replaced gets its end noted: in one commit. Repeatable. */
async function beginSwap(
  tx: Parameters<typeof lockHeld>[0],
  held: Held,
  serverId: string,
  replaced: string,
): Promise<void> {
  const { orgId, schema, operationId } = held;
  const { backup_id: backupId, keep_ms: keepMs } = paramsOf(held);
  await lockHeld(tx, held);
  await tx.execute(
    `INSERT INTO provisioner.cleanup_records (cleanup_id, operation_id, org_id, schema, server_id, object_kind,
       object_name, keep_until)
     VALUES (gen_random_uuid(), $1, $2, $3, $4, 'database', $5, now() + $6 * interval '1 millisecond')
     ON CONFLICT (server_id, object_kind, object_name) DO NOTHING`,
    [operationId, orgId, schema, serverId, replaced, keepMs ?? 0],
  );
  await noteResult(tx, held, { backup_id: backupId, replaced_database: replaced });
  const moved = await tx.execute(
    `UPDATE provisioner.tenants SET state = 'restoring', generation = generation + 1, updated_at = now()
     WHERE org_id = $1 AND schema = $2 AND state <> 'restoring'`,
    [orgId, schema],
  );
  if (moved > 0) await appendChange(tx, held);
}

async function toNewest(
  { connections, owners }: StepContext,
  client: pg.ClientBase,
  { server: place }: Subject,
  { schema }: Held,
  name: string,
): Promise<{ version: string; fingerprint: string }> {
  const login = await connections.migratorLogin(place, name);
  return server.whileConnectable(client, name, login.user, () =>
    owners.of(schema).migrate(place, login, schemaOwner(schema), ''),
  );
}

/** Reads the operation's archive from its beginning. Throws ArchiveError, also when its key is gone. */
export async function reading<T>(
  { database, master, objects }: StepContext,
  held: Held,
  signal: AbortSignal,
  fn: (reader: ArchiveReader) => Promise<T>,
): Promise<T> {
  const { backup_id: backupId } = paramsOf(held);
  const { object_key: objectKey } = await findBackup(database, backupId);
  signal.throwIfAborted();
  const stream = await objects.stream(objectKey);
  const giveUp = (): void => void stream.destroy(signal.reason as Error);
  signal.addEventListener('abort', giveUp);
  try {
    const expected = { archiveId: backupId, orgId: held.orgId };
    const reader = await ArchiveReader.open(
      stream as AsyncIterable<Buffer>,
      expected,
      async ({ key_version: version }) => {
        const row = await database.asSystem((tx) => findDataKey(tx, held.orgId, version));
        if (row === undefined) {
          throw new ArchiveError('ARCHIVE_KEY_UNAVAILABLE', `the data key ${version} of ${held.orgId} was destroyed`);
        }
        return (await unwrapDataKey(master, row)).key;
      },
    );
    return await fn(reader);
  } finally {
    signal.removeEventListener('abort', giveUp);
    stream.destroy();
  }
}

/** The owner must have made the archived tables by the same migrations, and may have more since. */
function checkMigrations(archived: readonly ListedMigration[], known: readonly ListedMigration[]): void {
  const strange = archived.find(({ name, checksum }, index) => {
    return known[index]?.name !== name || known[index].checksum !== checksum;
  });
  if (strange === undefined) return;
  const message = `${strange.name} is not a migration of this release, or is another one by that name`;
  throw new ArchiveError('ARCHIVE_SCHEMA_UNKNOWN', message);
}
