import { watched } from '../backups/watched.ts';
import type { TenantIndexRow } from '../db/entities/tenant-index.ts';
import type { StepName } from '../domain/plan.ts';
import { dropIndex, untilGivenUp } from '../drift/build-index.ts';
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

/** The steps of building and dropping an organization's own indexes. */
export const INDEX_STEPS = {
  async build_index({ database, connections }, _client, { tenant, server }, held, stop) {
    const { orgId, schema } = held;
    const key = [orgId, schema, nameOf(held)];
    const [wanted] = await database.asSystem((tx) =>
      tx.query<TenantIndexRow>(
        `SELECT name, table_name, columns, method FROM provisioner.tenant_indexes
         WHERE org_id = $1 AND schema = $2 AND name = $3`,
        key,
      ),
    );
    if (wanted === undefined) throw new Error(`no index ${nameOf(held)} was asked for`);
    const definition = await watched(database, held, stop, (_progress, signal) =>
      asOwnerInside(connections, server, tenant, (inside) =>
        untilGivenUp(inside, signal, () => buildOwnIndex(inside, schema, wanted)),
      ),
    );
    await database.asSystem(async (tx) => {
      await lockHeld(tx, held);
      await tx.execute(
        `UPDATE provisioner.tenant_indexes SET state = 'ready', definition = $4
         WHERE org_id = $1 AND schema = $2 AND name = $3`,
        [...key, definition],
      );
      await noteResult(tx, held, { index: definition });
    });
  },

  async drop_index({ database, connections }, client, { tenant, server }, held) {
    const { orgId, schema } = held;
    // A database that was lost has none, and the one that is restored gets none.
    if (await databaseExists(client, tenant.database_name)) {
      await asOwnerInside(connections, server, tenant, (inside) => dropIndex(inside, schema, nameOf(held)));
    }
    await database.asSystem(async (tx) => {
      await lockHeld(tx, held);
      await tx.execute('DELETE FROM provisioner.tenant_indexes WHERE org_id = $1 AND schema = $2 AND name = $3', [
        orgId,
        schema,
        nameOf(held),
      ]);
    });
  },
} satisfies Partial<Record<StepName, Step>>;
