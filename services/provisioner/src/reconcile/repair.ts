import type { JsonObject } from '@bufbuild/protobuf';
import { SECOND_MS, uuidv7 } from '@mad/process';
import type { Actor } from '@mad/rpc';
import type { ServerRow } from '../db/entities/server.ts';
import { schemaApp } from '../domain/names.ts';
import { NOBODY } from '../domain/plan.ts';
import { remedyOf, type Difference } from '../domain/reconcile.ts';
import { cleanUp, type Places } from '../operations/cleanup.ts';
import { lockTenant } from '../operations/lock-tenant.ts';
import { loadSubject } from '../provisioning/steps.ts';
import type { MasterKeys } from '../secrets/master-keys.ts';
import * as server from '../servers/tenant-database.ts';
import type { LookOptions } from './look.ts';

export interface RepairOptions extends LookOptions {
  master: MasterKeys;
  cleanupGraceMs: number;
}

const LOCK_WAIT_MS = 5 * SECOND_MS;
/** A round of cleaning up takes a hundred of each server; what is left then the keeper takes. */
const ROUNDS = 20;

/**
 * Puts right what can be: what nobody knows is noted for removal like the leavings of operations and removed with them, which
 * looks again under the tenant's lock. What fails is logged and stays a difference.
 */
export async function repair(options: RepairOptions, differences: readonly Difference[], actor: Actor): Promise<void> {
  const { database, objects, logger } = options;
  const mine = differences.filter((one) => remedyOf(one).repairable);
  if (mine.length === 0) return;
  const operationId = uuidv7();
  await database.asSystem(async (tx) => {
    const result = { removed: mine.map(({ kind, server: where, name }) => `${kind} ${where}/${name}`) };
    await tx.execute(
      `INSERT INTO provisioner.operations (operation_id, org_id, schema, kind, state, ended_at, result, actor_kind, user_id)
       VALUES ($1, $2, $3, 'reconcile', 'succeeded', now(), $4, $5, $6)`,
      [
        operationId,
        NOBODY,
        mine[0]!.schema ?? '',
        JSON.stringify(result satisfies JsonObject),
        actor.actorKind,
        actor.userId ?? null,
      ],
    );
  });
  for (const one of mine) {
    try {
      if (one.kind === 'orphan_archive' || one.kind === 'orphan_object') await objects.delete(one.name);
      else if (one.kind === 'lost_stock') await forgetStock(options, one);
      else if (one.kind === 'lost_role') await admitAgain(options, one);
      else await noteForRemoval(options, one, operationId);
    } catch (error) {
      logger.warn({ kind: one.kind, server: one.server, name: one.name, error }, 'a difference could not be repaired');
    }
  }
  const sweep = { ...options, graceMs: options.cleanupGraceMs };
  const places: Places = new Map();
  for (let round = 0; round < ROUNDS && (await cleanUp(sweep, places)) > 0; round += 1);
}

/** An operation that begins meanwhile takes the record over with the name. */
async function noteForRemoval({ database }: RepairOptions, one: Difference, operationId: string): Promise<void> {
  const kind = one.kind === 'orphan_role' ? 'role' : one.kind === 'orphan_template' ? 'template' : 'database';
  await database.asSystem((tx) =>
    tx.execute(
      `INSERT INTO provisioner.cleanup_records (cleanup_id, operation_id, org_id, schema, server_id, object_kind, object_name)
       SELECT gen_random_uuid(), $1, $2, $3, server_id, $4, $5 FROM provisioner.database_servers WHERE name = $6
       ON CONFLICT (server_id, object_kind, object_name) DO NOTHING`,
      [operationId, one.orgId ?? NOBODY, one.schema, kind, one.name, one.server],
    ),
  );
}

/** The keeper of the stock removes what is being made and nobody makes, and makes another. */
async function forgetStock({ database }: RepairOptions, one: Difference): Promise<void> {
  await database.asSystem((tx) =>
    tx.execute(
      `UPDATE provisioner.tenant_stock SET state = 'making' WHERE database_name = $1 AND state = 'ready' AND server_id =
         (SELECT server_id FROM provisioner.database_servers WHERE name = $2)`,
      [one.name, one.server],
    ),
  );
}

/** Makes the logins again, with their passwords and rights. Only of a tenant that is in use: the others' have fewer rights. */
async function admitAgain({ database, master, connections }: RepairOptions, one: Difference): Promise<void> {
  const key = { orgId: one.orgId!, schema: one.schema! };
  const { tenant, server: place, logins } = await loadSubject({ database, master }, key);
  if (tenant.state !== 'ready') throw new Error(`${one.name}: resume the organization first`);
  await connections.asAdmin(place satisfies ServerRow, async (client) => {
    await server.lockByName(client, `mad.tenant.${key.schema}.${key.orgId}`, LOCK_WAIT_MS);
    await database.asSystem(async (tx) => {
      const now = await lockTenant(tx, key);
      if (now?.state !== 'ready' || now.step !== null) throw new Error(`${one.name}: something is being done with it`);
      const names = logins.map(({ name }) => name);
      await server.admitLogins(client, tenant.database_name, schemaApp(key.schema), logins);
      await server.checkWall(client, tenant.database_name, schemaApp(key.schema), names);
    });
  });
}
