import { loginName } from '../domain/names.ts';
import type { StepName } from '../domain/plan.ts';
import { lockHeld, type Held } from '../operations/lease.ts';
import { appendChange } from '../provisioning/changes.ts';
import type { Step, StepContext } from '../provisioning/steps.ts';
import { presentRoles } from '../servers/login-roles.ts';
import { removeDatabase } from '../servers/remove-database.ts';
import * as database from '../servers/tenant-database.ts';
import type { ErasureParams } from './begin.ts';
import { destroyKeys } from './destroy-keys.ts';
import { eachPlace } from './places.ts';
import { keepRecord, keepRow } from './records.ts';
import { signErasure, type SignedErasure } from './signature.ts';
import { noteTally, readTally, union } from './tally.ts';

/** Objects deleted between two notes of it. */
const BATCH = 100;

const SLOTS = ['a', 'b'] as const;

/** The steps of erasing an organization. Each may be begun anew after any crash. */
export const ERASURE_STEPS = {
  async shut_out(context, client, { server }, held, stop) {
    await eachPlace(context, client, server, held, async ({ client: there, tenants }) => {
      for (const { database_name: name, schema } of tenants) {
        stop.throwIfAborted();
        await database.closeConnections(
          there,
          name,
          SLOTS.map((slot) => loginName(schema, held.orgId, slot)),
        );
      }
    });
  },

  async drop_databases(context, client, { server }, held) {
    await eachPlace(context, client, server, held, async ({ client: there, server: place, names }) => {
      const present: string[] = [];
      for (const name of names.databases) if (await database.databaseExists(there, name)) present.push(name);
      const found = present.map((name) => `${place.name}/${name}`);
      await noteTally(context.database, held, ({ databases }) => ({ databases: union(databases, found) }));
      for (const name of present) await removeDatabase(context.connections, place, there, name);
    });
    await context.database.asSystem(async (tx) => {
      await tx.execute('DELETE FROM provisioner.tenant_stock WHERE org_id = $1', [held.orgId]);
      await tx.execute(`DELETE FROM provisioner.cleanup_records WHERE org_id = $1 AND object_kind = 'database'`, [
        held.orgId,
      ]);
    });
  },

  async drop_roles(context, client, { server }, held) {
    await eachPlace(context, client, server, held, async ({ client: there, server: place, names }) => {
      const present = await presentRoles(there, names.roles);
      const found = present.map((name) => `${place.name}/${name}`);
      await noteTally(context.database, held, ({ roles }) => ({ roles: union(roles, found) }));
      for (const name of present) await database.dropRole(there, name);
    });
    await context.database.asSystem((tx) =>
      tx.execute(`DELETE FROM provisioner.cleanup_records WHERE org_id = $1 AND object_kind = 'role'`, [held.orgId]),
    );
  },

  async delete_objects(context, _client, _subject, held, stop) {
    await deleteObjects(context, held, stop);
    // A backup that was broken off may have left a draft under its key, which no listing shows.
    const drafts = await context.database.asSystem((tx) =>
      tx.query<{ object_key: string }>(
        `SELECT object_key FROM provisioner.backups WHERE org_id = $1 AND object_key <> ''`,
        [held.orgId],
      ),
    );
    for (const { object_key: key } of drafts) await context.objects.delete(key);
    await noteTally(context.database, held, async (tally, tx) => {
      const gone = await tx.execute('DELETE FROM provisioner.backups WHERE org_id = $1', [held.orgId]);
      await tx.execute('DELETE FROM provisioner.backup_policies WHERE org_id = $1', [held.orgId]);
      return { backups: tally.backups + gone };
    });
  },

  async destroy_keys(context, _client, _subject, held, stop) {
    await destroyKeys(context, held, stop);
  },

  async erase_rows({ database: db, rowOwners }, _client, _subject, held, stop) {
    const rows = await rowOwners.erase(held.orgId, stop);
    await noteTally(db, held, () => ({ rows }));
  },

  async sign_record(context, _client, _subject, held, stop) {
    // What requests that were under way when it began left behind.
    await deleteObjects(context, held, stop);
    const rows = await context.rowOwners.erase(held.orgId, stop);
    await noteTally(context.database, held, () => ({ rows }));
    const signed = await keepRecord(context.objects, await makeRecord(context, held));
    await context.database.asSystem((tx) => entomb(tx, held, signed));
  },
} satisfies Partial<Record<StepName, Step>>;

/** Deletes everything of the organization in the object store; what is counted is noted before it goes. */
async function deleteObjects({ database: db, objects }: StepContext, held: Held, stop: AbortSignal): Promise<void> {
  const { deleting: left } = await db.asSystem((tx) => readTally(tx, held));
  const remove = async (keys: readonly string[]): Promise<void> => {
    for (const key of keys) await objects.delete(key);
  };
  await remove(left);
  const flush = async (keys: readonly string[]): Promise<void> => {
    stop.throwIfAborted();
    await noteTally(db, held, (tally) => ({ objects: tally.objects + keys.length, deleting: [...keys] }));
    await remove(keys);
  };
  let batch: string[] = [];
  for await (const key of objects.walk(`orgs/${held.orgId}`)) {
    batch.push(key);
    if (batch.length < BATCH) continue;
    await flush(batch);
    batch = [];
  }
  if (batch.length > 0) await flush(batch);
  await noteTally(db, held, () => ({ deleting: [] }));
}

async function makeRecord({ database: db, signingJwk }: StepContext, held: Held): Promise<SignedErasure> {
  const { erasure_id: erasureId, slug, requested_by: requestedBy } = held.params as unknown as ErasureParams;
  return db.asSystem(async (tx) => {
    const { databases, roles, objects, backups, keys, rows } = await readTally(tx, held);
    const [operation] = await tx.query<{ started_at: Date; now: Date }>(
      'SELECT started_at, now() AS now FROM provisioner.operations WHERE operation_id = $1',
      [held.operationId],
    );
    const record = {
      erasure_id: erasureId,
      org_id: held.orgId,
      slug,
      operation_id: held.operationId,
      requested_by: requestedBy,
      requested_at: operation!.started_at.toISOString(),
      erased_at: operation!.now.toISOString(),
      databases,
      roles,
      objects,
      backups,
      keys,
      rows,
    };
    return signErasure(record, signingJwk);
  });
}

/** Keeps the record, and makes tombstones of the organization's other tenants; the operation's end does so with its own. */
async function entomb(tx: Parameters<typeof lockHeld>[0], held: Held, signed: SignedErasure): Promise<void> {
  await lockHeld(tx, held);
  // A rollout that is under way has one database less to look after.
  for (const table of ['placements', 'tenant_indexes', 'migration_runs']) {
    await tx.execute(`DELETE FROM provisioner.${table} WHERE org_id = $1`, [held.orgId]);
  }
  await keepRow(tx, signed);
  const others = await tx.query<{ schema: string }>(
    `UPDATE provisioner.tenants SET state = 'erased', generation = generation + 1, updated_at = now()
     WHERE org_id = $1 AND operation_id = $2 AND schema <> $3 AND state <> 'erased' RETURNING schema`,
    [held.orgId, held.operationId, held.schema],
  );
  for (const { schema } of others.sort((a, b) => (a.schema < b.schema ? -1 : 1))) {
    await appendChange(tx, { orgId: held.orgId, schema });
  }
}
