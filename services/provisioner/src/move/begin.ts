import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { notFound, rpcError, type Actor } from '@mad/rpc';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import { TENANT_COLUMNS, type TenantRow } from '../db/entities/tenant.ts';
import { weigh, type Refusal } from '../domain/placement.ts';
import type { TenantKey } from '../domain/plan.ts';
import { beginWithIdle } from '../operations/begin-idle.ts';
import type { Held } from '../operations/lease.ts';
import { REFUSALS } from '../provisioning/placing.ts';
import { readCandidates } from '../servers/candidates.ts';
import type { MoveParams } from './move-params.ts';

/** Both ends of a move that is asked for. */
export interface Ends {
  source: ServerRow;
  target: ServerRow;
}

/** Where the tenant is and where it shall go. Throws NOT_FOUND, FAILED_PRECONDITION where it is there already. */
export async function endsOf(tx: Tx, key: TenantKey, targetName: string): Promise<Ends> {
  const [tenant] = await tx.query<TenantRow>(
    `SELECT ${TENANT_COLUMNS} FROM provisioner.tenants WHERE org_id = $1 AND schema = $2`,
    [key.orgId, key.schema],
  );
  if (tenant === undefined) throw notFound('tenant', key.schema);
  const servers = await tx.query<ServerRow>(
    `SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers WHERE server_id = $1 OR name = $2`,
    [tenant.server_id, targetName],
  );
  const target = servers.find(({ name }) => name === targetName);
  if (target === undefined) throw notFound('server', targetName);
  if (target.server_id === tenant.server_id) throw conflict(key, `server: the tenant is on ${targetName} already`);
  return { source: servers.find(({ server_id: id }) => id === tenant.server_id)!, target };
}

/**
 * Begins to move a tenant. Throws what `beginWithIdle` does, and FAILED_PRECONDITION for a tenant that is not ready or a
 * server that takes none: of another region, drained, full (tenants on their way there count) or not answering.
 */
export async function beginMove(
  tx: Tx,
  key: TenantKey,
  { source, target }: Ends,
  { actor, leaseMs, keepMs, kind }: { actor: Actor; leaseMs: number; keepMs: number; kind: 'move' | 'move_online' },
): Promise<Held> {
  // One after the other, so that two tenants never both take the last place.
  await tx.execute('SELECT FROM provisioner.database_servers WHERE server_id = $1 FOR NO KEY UPDATE', [
    target.server_id,
  ]);
  const params: MoveParams = {
    source_server_id: source.server_id,
    source_server: source.name,
    target_server_id: target.server_id,
    target_server: target.name,
    keep_ms: keepMs,
  };
  const [coming] = await tx.query<{ moves: number }>(
    `SELECT count(*)::int AS moves FROM provisioner.operations WHERE state = 'running' AND kind IN ('move', 'move_online')
       AND params ->> 'target_server_id' = $1`,
    [target.server_id],
  );
  const held = await beginWithIdle(tx, key, kind, { actor, leaseMs, params: { ...params } });
  const [tenant] = await tx.query<Pick<TenantRow, 'state' | 'region' | 'server_id'>>(
    'SELECT state, region, server_id FROM provisioner.tenants WHERE org_id = $1 AND schema = $2',
    [key.orgId, key.schema],
  );
  const { state, region, server_id: serverId } = tenant!;
  if (serverId !== source.server_id) throw conflict(key, 'server: the tenant was moved meanwhile: ask again');
  if (state !== 'ready') throw conflict(key, `the tenant is ${state}: only a ready one is moved`);
  const candidates = (await readCandidates(tx)).map((one) =>
    one.serverId === target.server_id ? { ...one, tenants: one.tenants + coming!.moves } : one,
  );
  const refused = weigh(candidates, region).find((verdict) => verdict.server === target.name)?.refused;
  if (refused !== undefined) throw refusal(target.name, refused);
  return held;
}

/** A server takes no tenant. */
export function refusal(server: string, refused: Refusal, cause?: unknown): Error {
  const hint = refused === 'other_region' ? ' than the organization: its region would have to be changed first' : '';
  const message = `server: ${server} ${REFUSALS[refused]}${hint}`;
  return rpcError(
    Code.FailedPrecondition,
    'NO_SERVER_AVAILABLE',
    message,
    { servers: `${server}=${refused}` },
    { cause },
  );
}

/** The tenant cannot be moved so. */
export function conflict({ orgId, schema }: TenantKey, why: string): Error {
  return rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', why, { org_id: orgId, schema });
}

/** A server cannot do what an online move needs. */
export function noReplication({ orgId, schema }: TenantKey, why: string): Error {
  const message = `mode: ${why}: prepare the server anew, or move offline`;
  return rpcError(Code.FailedPrecondition, 'REPLICATION_UNAVAILABLE', message, { org_id: orgId, schema });
}
