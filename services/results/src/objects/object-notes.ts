import { uuidv7 } from '@mad/process';
import type { TenantTx } from '@mad/tenancy';
import type { ObjectPurpose } from '../db/entities/stored-object.ts';

/** An object that is noted: where it is, and whose. */
export interface NotedObject {
  objectId: string;
  purpose: ObjectPurpose;
  /** The job of poses, the export of a part. */
  ownerId: string;
}

/** Where an object is in the store. */
export function objectKey(orgId: string, { purpose, ownerId, objectId }: NotedObject): string {
  return `orgs/${orgId}/${purpose}/${ownerId}/${objectId}`;
}

/**
 * Notes an object that is about to be written. Its transaction must have committed before the first byte is: whoever dies in
 * between leaves a note, which the sweeper follows, never an object that nobody knows.
 */
export async function noteObject(
  tx: TenantTx,
  { purpose, ownerId, executionId }: { purpose: ObjectPurpose; ownerId: string; executionId?: string },
): Promise<NotedObject> {
  const objectId = uuidv7();
  await tx.execute(
    'INSERT INTO stored_objects (object_id, purpose, owner_id, task_execution_id) VALUES ($1, $2, $3, $4)',
    [objectId, purpose, ownerId, executionId ?? null],
  );
  return { objectId, purpose, ownerId };
}

/** Says, in the transaction that first refers to it, that an object is there to stay. False when it was swept meanwhile. */
export async function keepObject(tx: TenantTx, objectId: string, sizeBytes: number): Promise<boolean> {
  const kept = await tx.execute(
    `UPDATE stored_objects SET state = 'kept', size_bytes = $2 WHERE object_id = $1 AND state = 'writing'`,
    [objectId, sizeBytes],
  );
  return kept === 1;
}

/**
 * Gives up objects of executions, which are locked: what lost attempts have written. They are removed by the next sweep. What
 * is being written stays noted: it may come at any moment, and its writer gives it up or the sweeper does once none can be at it.
 */
export async function dropObjectsOfExecutions(tx: TenantTx, executionIds: readonly string[]): Promise<void> {
  await tx.execute(
    `UPDATE stored_objects SET state = 'dropped' WHERE task_execution_id = ANY ($1::uuid[]) AND state = 'kept'`,
    [executionIds],
  );
}

/** The same for all objects of an export, which is locked. */
export async function dropObjectsOfOwner(tx: TenantTx, ownerId: string): Promise<void> {
  await tx.execute(`UPDATE stored_objects SET state = 'dropped' WHERE owner_id = $1 AND state = 'kept'`, [ownerId]);
}

/**
 * Gives up an object by the word of its writer, who is done with it. Where its note is gone, it is noted again. One that was
 * kept stays: its writer did not hear of a commit.
 */
export async function dropObject(tx: TenantTx, { objectId, purpose, ownerId }: NotedObject): Promise<void> {
  await tx.execute(
    `INSERT INTO stored_objects AS o (object_id, purpose, owner_id, state) VALUES ($1, $2, $3, 'dropped')
      ON CONFLICT (object_id) DO UPDATE SET state = 'dropped' WHERE o.state = 'writing'`,
    [objectId, purpose, ownerId],
  );
}
