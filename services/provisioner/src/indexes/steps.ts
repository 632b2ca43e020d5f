import type { Database, Tx } from '@mad/postgres';
import { SECOND_MS } from '@mad/process';
import { watched } from '../backups/watched.ts';
import type { TenantIndexRow } from '../db/entities/tenant-index.ts';
import type { StepName } from '../domain/plan.ts';
import { dropIndex, endGivenUp, untilGivenUp } from '../drift/build-index.ts';
import { asOwnerInside } from '../drift/look.ts';
import { lockHeld, noteResult, type Held } from '../operations/lease.ts';
import type { Step } from '../provisioning/steps.ts';
import { databaseExists } from '../servers/tenant-database.ts';
import { buildOwnIndex } from './own-indexes.ts';

/** What operations with an index are told. */
export interface IndexParams {
  name: string;
}

const nameOf = ({ params }: Held): string => (params as unknown as IndexParams).name;
const keyOf = (held: Held): string[] => [held.orgId, held.schema, nameOf(held)];

/** How long an end that somebody waits for, e.g. a suspension, waits for the tenant's own transactions. */
const GIVING_UP_MS = 5 * SECOND_MS;
const LOCK_NOT_AVAILABLE = '55P03';

/** The steps of building and dropping an organization's own indexes. */
export const INDEX_STEPS = {
  async build_index({ database, connections }, _client, { tenant, server }, held, stop) {
    const wanted = await noted(database, held);
    if (wanted === undefined) throw new Error(`no index ${nameOf(held)} was asked for`);
    const definition = await watched(database, held, stop, (_progress, signal) =>
      asOwnerInside(connections, server, tenant, (inside) =>
        untilGivenUp(inside, signal, () => buildOwnIndex(inside, held.schema, wanted)),
      ),
    );
    await database.asSystem(async (tx) => {
      await lockHeld(tx, held);
      await tx.execute(
        `UPDATE provisioner.tenant_indexes SET state = 'ready', definition = $4
         WHERE org_id = $1 AND schema = $2 AND name = $3`,
        [...keyOf(held), definition],
      );
      await noteResult(tx, held, { index: definition });
    });
  },

  async drop_index({ database, connections }, client, { tenant, server }, held, stop) {
    const index = await noted(database, held);
    if (index === undefined) return;
    // A database that was lost has none, and the one that is restored gets none.
    if (await databaseExists(client, tenant.database_name)) {
      await endGivenUp(client, tenant.database_name);
      // It may wait for a transaction that a suspension would end.
      await watched(database, held, stop, (_progress, signal) =>
        asOwnerInside(connections, server, tenant, (inside) =>
          untilGivenUp(inside, signal, () => dropIndex(inside, held.schema, index)),
        ),
      );
    }
    await database.asSystem((tx) => forget(tx, held));
  },

  /** What was not built is wanted no more. Where the tenant's own transactions are in the way, it is dropped afterwards. */
  async drop_unfinished({ database, connections }, client, { tenant, server }, held) {
    const index = await noted(database, held);
    if (index?.state !== 'building') return;
    if (!(await databaseExists(client, tenant.database_name))) return database.asSystem((tx) => forget(tx, held));
    await endGivenUp(client, tenant.database_name);
    // Not on the connection it was built on: that is gone, or of no use.
    const gone = await asOwnerInside(connections, server, tenant, async (inside) => {
      try {
        await dropIndex(inside, held.schema, index, GIVING_UP_MS);
        return true;
      } catch (error) {
        if ((error as { code?: string }).code === LOCK_NOT_AVAILABLE) return false;
        throw error;
      }
    });
    await database.asSystem(async (tx) => {
      if (gone) return forget(tx, held);
      await lockHeld(tx, held);
      await tx.execute(
        `UPDATE provisioner.tenant_indexes SET state = 'dropping' WHERE org_id = $1 AND schema = $2 AND name = $3`,
        keyOf(held),
      );
    });
  },
} satisfies Partial<Record<StepName, Step>>;

async function noted(database: Database, held: Held): Promise<TenantIndexRow | undefined> {
  const [row] = await database.asSystem((tx) =>
    tx.query<TenantIndexRow>(
      `SELECT name, table_name, columns, method, state FROM provisioner.tenant_indexes
       WHERE org_id = $1 AND schema = $2 AND name = $3`,
      keyOf(held),
    ),
  );
  return row;
}

async function forget(tx: Tx, held: Held): Promise<void> {
  await lockHeld(tx, held);
  await tx.execute(
    'DELETE FROM provisioner.tenant_indexes WHERE org_id = $1 AND schema = $2 AND name = $3',
    keyOf(held),
  );
}
