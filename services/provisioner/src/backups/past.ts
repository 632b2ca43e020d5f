import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import type { ObjectStore } from '@mad/object-store';
import { clientOptions, withClient, type Statements } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { listTables } from '@mad/tenancy';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import { canBeArchived } from '../domain/backup-rules.ts';
import { schemaOwner, type ListedMigration } from '../domain/names.ts';
import { insertOperation } from '../operations/lease.ts';
import { noteDataKey, prepareDataKey } from '../secrets/data-keys.ts';
import type { MasterKeys } from '../secrets/master-keys.ts';
import type { ArchiveHeader, ArchivePlan } from './archive-format.ts';
import { writeArchive, type Written } from './archive-writer.ts';
import { completeBackup } from './backup-rows.ts';
import { archivedSchema } from './metadata.ts';
import { copyOut, prepareSession, sequenceValues } from './snapshot.ts';

export interface PastOptions {
  master: MasterKeys;
  objects: ObjectStore;
  orgId: string;
  schema: string;
  /** All that the schema's owner has, oldest first. */
  migrations: readonly ListedMigration[];
  /** Of a superuser, to a database of the server as it was; the tenant's own is found by its name. */
  url: string;
  /** The moment that server is of, ISO. */
  at: string;
}

/** The tenant, if its database may be archived. Throws for one that is not, above all for an erased one. */
export async function archivable(
  tx: Pick<Statements, 'query'>,
  { orgId, schema }: Pick<PastOptions, 'orgId' | 'schema'>,
): Promise<TenantRow> {
  const [tenant] = await tx.query<TenantRow>(
    `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 AND schema = $2`,
    [orgId, schema],
  );
  if (tenant === undefined) throw new Error(`no tenant ${schema} of ${orgId}`);
  if (!canBeArchived(tenant.state)) throw new Error(`the tenant is ${tenant.state}: it has no backups`);
  return tenant;
}

/**
 * Archives a tenant's database as it is on a server that was brought back to an earlier moment, as a backup like every
 * other: it can be tried and restored. `tx` writes to the metadata database as somebody whom row-level security does not
 * bind. What a crash leaves is a failed backup, which can be removed.
 */
export async function archivePast(
  tx: Statements,
  options: PastOptions,
): Promise<{ backupId: string; rows: number; sizeBytes: number }> {
  const { master, objects, orgId, schema, migrations, url, at } = options;
  const tenant = await archivable(tx, options);
  const backupId = uuidv7();
  const objectKey = `orgs/${orgId}/backups/${backupId}/${randomBytes(8).toString('hex')}`;
  const key = { orgId, schema };
  const params = { backup_id: backupId, as_of: at };
  const operationId = await insertOperation(tx, key, 'backup', {
    actor: { actorKind: 'platform' },
    params,
  });
  // Nobody goes on with it: it has failed until it is done.
  await tx.execute(
    `UPDATE provisioner.operations SET state = 'failed', error = 'it was broken off', ended_at = now() WHERE operation_id = $1`,
    [operationId],
  );
  await tx.execute(
    'INSERT INTO provisioner.backups (backup_id, org_id, schema, operation_id, object_key) VALUES ($1, $2, $3, $4, $5)',
    [backupId, orgId, schema, operationId, objectKey],
  );
  const dataKey = await noteDataKey(tx, master, await prepareDataKey((fn) => fn(tx), master, orgId));
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
  const target = new URL(url);
  target.pathname = `/${tenant.database_name}`;
  let written: Written | undefined;
  await withClient({ ...clientOptions(target.href), application_name: 'mad-past' }, async (client) => {
    const role = schemaOwner(schema);
    await prepareSession(client, role);
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    const { rows } = await client.query<{ snapshot: string; postgres: string }>(
      `SELECT pg_export_snapshot() AS snapshot, current_setting('server_version') AS postgres`,
    );
    const { snapshot, postgres } = rows[0]!;
    const { tables, sequences } = await listTables(target.href, role, schema, snapshot);
    const plan: ArchivePlan = {
      snapshot_at: at,
      generation: tenant.generation,
      postgres,
      schemas: [await archivedSchema(client, schema, migrations, sequences)],
      tables: tables.map(({ name, columns, partitionOf, bound }) => {
        return { schema, name, columns, partition_of: partitionOf, bound };
      }),
    };
    const source = {
      plan,
      rows: (table: ArchivePlan['tables'][number]) => copyOut(client, table),
      sequences: () => sequenceValues(client, schema, sequences),
    };
    const content = async function* (): AsyncGenerator<Buffer> {
      written = yield* writeArchive({ header, secret: dataKey.key, source });
    };
    await objects.putStreamIfAbsent(objectKey, Readable.from(content(), { highWaterMark: 1 }));
    await client.query('COMMIT');
  });
  const { manifest, sizeBytes } = written!;
  const count = manifest.tables.reduce((sum, table) => sum + table.rows, 0);
  await completeBackup(tx, backupId, written!);
  await tx.execute(
    `UPDATE provisioner.operations SET state = 'succeeded', error = '', progress_done = progress_total, ended_at = now(),
       result = $2 WHERE operation_id = $1`,
    [operationId, JSON.stringify({ ...params, rows: count, size_bytes: sizeBytes })],
  );
  return { backupId, rows: count, sizeBytes };
}
