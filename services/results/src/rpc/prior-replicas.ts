import { Code, ConnectError } from '@connectrpc/connect';
import type { ObjectStore } from '@mad/object-store';
import { CONTENT_BYTES, structBytes, textBytes } from '../domain/content.ts';
import { readStructures } from '../objects/structures.ts';
import type { ItemToRun, Prior, PriorPose } from '../runs/start.ts';

type KnownPose = PriorPose & { molBlock: string };
type KnownPrior = Omit<Prior, 'poses'> & { poses: KnownPose[] };

/** Five numbers, two places and the lengths of a pose, at most. */
const POSE_BYTES = 60;

/**
 * What is known of items, with its structures. Where one is lost, or where the answer has no more room, nothing is known:
 * all of the item runs again, and gives the same.
 */
export async function withPriors(objects: ObjectStore, orgId: string, items: readonly ItemToRun[]) {
  let room = CONTENT_BYTES;
  const answered = [];
  for (const { prior, ...item } of items) {
    const known = prior && room > 0 ? await withStructures(objects, orgId, prior) : undefined;
    const bytes = known === undefined ? 0 : priorBytes(known);
    answered.push(bytes > room ? item : { ...item, prior: known });
    // One that fits into no answer says nothing of the others.
    if (bytes <= room) room -= bytes;
    else if (bytes <= CONTENT_BYTES) room = 0;
  }
  return answered;
}

async function withStructures(objects: ObjectStore, orgId: string, prior: Prior): Promise<KnownPrior | undefined> {
  const places = prior.poses.map(({ place }) => place);
  const structures = await readStructures(objects, orgId, places).catch((error: unknown) => {
    if (error instanceof ConnectError && error.code === Code.DataLoss) return undefined;
    throw error;
  });
  if (structures === undefined) return undefined;
  const poses = prior.poses.map((pose, index) => ({ ...pose, molBlock: structures[index] ?? '' }));
  return { resultData: prior.resultData, poses };
}

function priorBytes({ resultData, poses }: KnownPrior): number {
  const structures = poses.map(({ molBlock }) => molBlock);
  return structBytes(resultData) + poses.length * POSE_BYTES + textBytes(...structures);
}
