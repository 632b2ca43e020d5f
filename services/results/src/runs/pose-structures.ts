import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { zstdCompressSync } from 'node:zlib';
import type { ObjectStore } from '@mad/object-store';
import type { TenantTx, Tenants } from '@mad/tenancy';
import { decideBatch, mayReport } from '../domain/execution.ts';
import type { Poses } from '../domain/result-batch.ts';
import { keepObject, noteObject, objectKey, type NotedObject } from '../objects/object-notes.ts';
import { WRITING_MOST_MS } from '../objects/sweep.ts';
import { lockExecution } from './execution.ts';

/** The event loop is let go after so many structures are compressed. */
const AT_ONCE = 256;

/** Where the structures of a batch are: row i's piece at place i. A length of 0 says there is none. */
export interface StoredStructures {
  object: NotedObject;
  offset: readonly number[];
  length: readonly number[];
  size: number;
}

/** Structures of a batch, each compressed by itself, so that one can be read without the others. */
async function compress(molBlocks: readonly string[]): Promise<{ pieces: Buffer[]; offset: number[]; size: number }> {
  const pieces: Buffer[] = [];
  const offset: number[] = [];
  let size = 0;
  for (const [row, molBlock] of molBlocks.entries()) {
    const piece = molBlock === '' ? Buffer.alloc(0) : zstdCompressSync(molBlock);
    pieces.push(piece);
    offset.push(size);
    size += piece.length;
    if (row % AT_ONCE === AT_ONCE - 1) await setImmediate();
  }
  return { pieces, offset, size };
}

/** A batch whose structures are to be stored. */
export interface StructuresOf {
  orgId: string;
  id: string;
  attempt: number;
  batch: number;
  poses: Poses;
}

/**
 * Writes the structures of a batch as one object, before the batch is taken: rows then never point nowhere. Undefined when
 * it has none, or is not the attempt's next. Whoever dies after this leaves a note that the sweeper follows.
 */
export async function storeStructures(
  { tenants, objects }: { tenants: Tenants; objects: ObjectStore },
  { orgId, id, attempt, batch, poses }: StructuresOf,
): Promise<StoredStructures | undefined> {
  if (poses.molBlock.every((one) => one === '')) return undefined;
  const object = await tenants.transact(orgId, async (tx) => {
    const execution = await lockExecution(tx, id);
    const isNext = mayReport(execution, attempt) && decideBatch(execution.batches, batch) === 'take';
    return isNext ? noteObject(tx, { purpose: 'poses', ownerId: execution.jobId, executionId: id }) : undefined;
  });
  if (object === undefined) return undefined;
  const { pieces, offset, size } = await compress(poses.molBlock);
  const content = Readable.from(pieces, { signal: AbortSignal.timeout(WRITING_MOST_MS / 2) });
  await objects.putStreamIfAbsent(objectKey(orgId, object), content);
  return { object, offset, length: pieces.map((piece) => piece.length), size };
}

/** In the transaction that takes the batch: its object stays. False when it was given up meanwhile. */
export async function keepStructures(tx: TenantTx, { object, size }: StoredStructures): Promise<boolean> {
  return keepObject(tx, object.objectId, size);
}
