import { zstdDecompressSync } from 'node:zlib';
import type { ObjectStore } from '@mad/object-store';
import type { PoseRow } from '../rpc/convert.ts';
import { lost, readFailure } from './lost-object.ts';
import { objectKey } from './object-notes.ts';

const WHAT = 'the structure of a pose';
/** Structures read at the same time. */
const AT_ONCE = 16;

/** Where a structure is. */
export type StructurePlace = Pick<PoseRow, 'job_id' | 'pose_object' | 'pose_offset' | 'pose_length'>;

/** A pose's mol block; undefined where the engine gave none. DATA_LOSS when its object is gone. */
export async function readStructure(
  objects: ObjectStore,
  orgId: string,
  { job_id: ownerId, pose_object: objectId, pose_offset: offset, pose_length: length }: StructurePlace,
): Promise<string | undefined> {
  if (objectId === null) return undefined;
  const key = objectKey(orgId, { purpose: 'poses', ownerId, objectId });
  let piece: Uint8Array;
  try {
    piece = await objects.getRange(key, offset!, length!);
  } catch (error) {
    throw readFailure(WHAT, error);
  }
  if (piece.length !== length) throw lost(WHAT, 'damaged');
  try {
    return zstdDecompressSync(piece).toString();
  } catch (error) {
    throw lost(WHAT, 'damaged', error);
  }
}

/** Many of them, in their order. */
export async function readStructures(
  objects: ObjectStore,
  orgId: string,
  places: readonly (StructurePlace | undefined)[],
): Promise<(string | undefined)[]> {
  const found: (string | undefined)[] = [];
  for (let start = 0; start < places.length; start += AT_ONCE) {
    const some = places.slice(start, start + AT_ONCE);
    found.push(...(await Promise.all(some.map(async (place) => place && readStructure(objects, orgId, place)))));
  }
  return found;
}
