import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { invalid, notFound, rpcError } from '@mad/rpc';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What a job runs over: a sealed library, or molecules by their ids. */
export interface AskedInput {
  moleculeSetId: string;
  moleculeIds: readonly string[];
}

/** A job's input, which does not change any more. */
export interface FrozenInput {
  moleculeSetId: string;
  count: number;
}

/** Throws INVALID_ARGUMENT unless exactly one of the two is given. */
export function requireInput({ moleculeSetId, moleculeIds }: AskedInput): void {
  if (moleculeSetId === '' && moleculeIds.length === 0) {
    throw invalid('molecule_set_id', 'a job needs molecules: give molecule_set_id or molecule_ids');
  }
  if (moleculeSetId !== '' && moleculeIds.length > 0) {
    throw invalid('molecule_ids', 'must be empty when molecule_set_id is given');
  }
  if (moleculeSetId !== '' && !UUID.test(moleculeSetId)) throw invalid('molecule_set_id', 'must be a UUID');
}

/** The job's input, in the organization: the library itself, which is sealed, or a new set that is sealed here. */
export async function freezeInput(
  tx: Tx,
  { orgId, userId }: { orgId: string; userId: string },
  asked: AskedInput,
): Promise<FrozenInput> {
  return asked.moleculeSetId === ''
    ? freezeMolecules(tx, orgId, userId, asked.moleculeIds)
    : sealedSet(tx, orgId, asked.moleculeSetId);
}

async function sealedSet(tx: Tx, orgId: string, moleculeSetId: string): Promise<FrozenInput> {
  const [set] = await tx.query<{ size: number; sealed: boolean }>(
    `SELECT size, sealed_at IS NOT NULL AS sealed FROM catalog.molecule_sets WHERE org_id = $1 AND molecule_set_id = $2`,
    [orgId, moleculeSetId],
  );
  if (!set) throw notFound('molecule set', moleculeSetId);
  if (!set.sealed) {
    const message = 'molecule_set_id: the set is not sealed: it could change while the job runs';
    throw rpcError(Code.FailedPrecondition, 'STATE_CONFLICT', message, { field: 'molecule_set_id' });
  }
  if (set.size === 0) throw invalid('molecule_set_id', 'the set is empty');
  return { moleculeSetId, count: set.size };
}

async function freezeMolecules(
  tx: Tx,
  orgId: string,
  userId: string,
  moleculeIds: readonly string[],
): Promise<FrozenInput> {
  const moleculeSetId = uuidv7();
  const missing = await tx.query<{ id: string }>(
    `SELECT id FROM unnest($2::uuid[]) AS given (id)
     WHERE NOT EXISTS (SELECT FROM catalog.molecules m WHERE m.org_id = $1 AND m.molecule_id = given.id) LIMIT 1`,
    [orgId, moleculeIds],
  );
  if (missing.length > 0) throw notFound('molecule', missing[0]!.id);
  const count = moleculeIds.length;
  await tx.execute(
    `INSERT INTO catalog.molecule_sets (org_id, molecule_set_id, size, created_by) VALUES ($1, $2, $3, $4)`,
    [orgId, moleculeSetId, count, userId],
  );
  await tx.execute(
    `INSERT INTO catalog.molecule_set_members (org_id, molecule_set_id, item_no, molecule_id)
     SELECT $1, $2, item_no, id FROM unnest($3::uuid[]) WITH ORDINALITY AS given (id, item_no)`,
    [orgId, moleculeSetId, moleculeIds],
  );
  await tx.execute(`UPDATE catalog.molecule_sets SET sealed_at = now() WHERE org_id = $1 AND molecule_set_id = $2`, [
    orgId,
    moleculeSetId,
  ]);
  return { moleculeSetId, count };
}
