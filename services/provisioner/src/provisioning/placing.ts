import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { rpcError } from '@mad/rpc';
import { databaseName, loginName, type Slot } from '../domain/names.ts';
import type { TenantKey } from '../domain/plan.ts';
import { best, weigh, type Refusal, type Verdict } from '../domain/placement.ts';
import { newPassword, noteDataKey, sealPassword, type PreparedKey } from '../secrets/data-keys.ts';
import type { MasterKeys } from '../secrets/master-keys.ts';
import { readCandidates } from '../servers/candidates.ts';
import { insertOperation, type Request } from '../operations/lease.ts';

/**
 * Notes a new tenant on a server of its region, with passwords for its two logins under the organization's prepared key,
 * which only a tenant that exists already does without. Returns its
 * operation, or undefined when the tenant exists.
 * Throws FAILED_PRECONDITION (NO_SERVER_AVAILABLE) naming the region when no server there takes it.
 */
export async function insertTenant(
  tx: Tx,
  master: MasterKeys,
  key: TenantKey,
  prepared: PreparedKey | undefined,
  region: string,
  request: Request,
): Promise<string | undefined> {
  const { orgId, schema } = key;
  const exists = await tx.execute('SELECT FROM provisioner.tenants WHERE org_id = $1 AND schema = $2', [orgId, schema]);
  if (exists > 0) return undefined;
  if (prepared === undefined) throw new Error('the tenant vanished');
  const gone = await tx.execute('SELECT FROM provisioner.erasure_records WHERE org_id = $1', [orgId]);
  if (gone > 0) throw erased(key);
  // Locked one after the other, so that two new tenants never both take the last place.
  await tx.execute('SELECT FROM provisioner.database_servers WHERE region = $1 ORDER BY server_id FOR NO KEY UPDATE', [
    region,
  ]);
  const candidates = await readCandidates(tx);
  const verdicts = weigh(candidates, region);
  const taken = best(verdicts);
  if (taken === undefined) throw noServer(region, verdicts);
  const server = candidates.find(({ name }) => name === taken.server)!;
  const operationId = await insertOperation(tx, key, 'provision', request);
  const inserted = await tx.execute(
    `INSERT INTO provisioner.tenants (org_id, schema, server_id, database_name, region, operation_id)
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (org_id, schema) DO NOTHING`,
    [orgId, schema, server.serverId, databaseName(schema, orgId), region, operationId],
  );
  if (inserted === 0) {
    await tx.execute('DELETE FROM provisioner.operations WHERE operation_id = $1', [operationId]);
    return undefined;
  }
  await tx.execute(
    `INSERT INTO provisioner.placements (org_id, schema, region, server_name, verdicts) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (org_id, schema) DO UPDATE SET region = excluded.region, server_name = excluded.server_name,
       verdicts = excluded.verdicts, placed_at = now()`,
    [orgId, schema, region, server.name, JSON.stringify(verdicts)],
  );
  await insertCredentials(tx, master, key, prepared);
  return operationId;
}

/** What a refusal says of a server. */
export const REFUSALS: Readonly<Record<Refusal, string>> = {
  other_region: 'is in another region',
  draining: 'is drained',
  full: 'is full',
  unreachable: 'does not answer',
};

/** Names each server of the region and why it takes none. */
function noServer(region: string, verdicts: readonly Verdict[]): Error {
  const there = verdicts.filter(({ refused }) => refused !== 'other_region');
  const why = there.map(({ server, refused }) => `${server} ${REFUSALS[refused!]}`).join(', ');
  const message = `region: no server in ${region} takes another database${why === '' ? '' : `: ${why}`}`;
  const reasons = there.map(({ server, refused }) => `${server}=${refused}`).join(',');
  return rpcError(Code.FailedPrecondition, 'NO_SERVER_AVAILABLE', message, { region, servers: reasons });
}

/** Nothing makes a database for an organization that was erased. */
export function erased({ orgId, schema }: TenantKey): Error {
  const message = 'the organization was erased: it is not made again';
  return rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', message, { org_id: orgId, schema, state: 'erased' });
}

async function insertCredentials(
  tx: Tx,
  master: MasterKeys,
  { orgId, schema }: TenantKey,
  prepared: PreparedKey,
): Promise<void> {
  const dataKey = await noteDataKey(tx, master, prepared);
  for (const slot of ['a', 'b'] satisfies Slot[]) {
    const role = loginName(schema, orgId, slot);
    await tx.execute(
      `INSERT INTO provisioner.tenant_credentials (org_id, schema, slot, role_name, secret, data_key_version, active)
       VALUES ($1, $2, $3, $4, $5, $6, $7)`,
      [orgId, schema, slot, role, sealPassword(dataKey, schema, role, newPassword()), dataKey.version, slot === 'a'],
    );
  }
}
