import type { JsonObject } from '@bufbuild/protobuf';
import type { Tx } from '@mad/postgres';
import type { Slot } from '../domain/names.ts';
import type { TenantKey } from '../domain/plan.ts';
import { begin, type Held, type Request } from '../operations/lease.ts';

/** Begins the rotation of an idle tenant whose row the caller has locked, to the login that is not in use. */
export async function beginRotation(
  tx: Tx,
  key: TenantKey,
  { leaseMs, actor, params = {} }: Request & { leaseMs: number },
): Promise<Held> {
  const [passive] = await tx.query<{ slot: Slot }>(
    'SELECT slot FROM provisioner.tenant_credentials WHERE org_id = $1 AND schema = $2 AND NOT active',
    [key.orgId, key.schema],
  );
  if (passive === undefined) throw new Error(`${key.schema} of ${key.orgId} has no second login`);
  const noted: JsonObject = { ...params, slot: passive.slot };
  return begin(tx, key, 'rotate', { leaseMs, actor, params: noted });
}
