import type { Database, Tx } from '@mad/postgres';
import { lockHeld, type Held } from '../operations/lease.ts';

/**
 * What an erasure has done so far, as its operation's `result` keeps it: noted together with what it counts, so that
 * whoever goes on after a crash counts nothing twice and forgets nothing.
 */
export interface Tally {
  databases: string[];
  roles: string[];
  objects: number;
  /** Counted already, perhaps not deleted yet. */
  deleting: string[];
  backups: number;
  keys: number;
  rows: Record<string, Record<string, number>>;
}

const NOTHING: Tally = { databases: [], roles: [], objects: 0, deleting: [], backups: 0, keys: 0, rows: {} };

export async function readTally(tx: Tx, { operationId }: Held): Promise<Tally> {
  const [row] = await tx.query<{ result: Partial<Tally> }>(
    'SELECT result FROM provisioner.operations WHERE operation_id = $1',
    [operationId],
  );
  return { ...NOTHING, ...row?.result };
}

/** Changes the tally together with what `change` writes. Throws LeaseLost when the lease is another's. */
export async function noteTally(
  db: Database,
  held: Held,
  change: (tally: Tally, tx: Tx) => Partial<Tally> | Promise<Partial<Tally>>,
): Promise<Tally> {
  return db.asSystem(async (tx) => {
    await lockHeld(tx, held);
    await tx.execute('SELECT FROM provisioner.operations WHERE operation_id = $1 FOR UPDATE', [held.operationId]);
    const before = await readTally(tx, held);
    const after: Tally = { ...before, ...(await change(before, tx)) };
    await tx.execute(
      'UPDATE provisioner.operations SET result = $2::jsonb, updated_at = now() WHERE operation_id = $1',
      [held.operationId, JSON.stringify(after)],
    );
    return after;
  });
}

/** A list with what is new in another, each once. */
export const union = (known: readonly string[], more: readonly string[]): string[] => [...new Set([...known, ...more])];
