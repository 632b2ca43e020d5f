import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { ExportFormat, StorageService } from '@mad/proto/results';
import { failureOf } from './support/errors.ts';
import { beginExport, endedExport } from './support/exported.ts';
import { newSmiles } from './support/smiles.ts';
import { atomAt } from './support/structures.ts';
import { docking, openWorld, type Organization, type World } from './support/world.ts';

let world: World;

beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const pose = (at: number) => ({
  replicate: 1,
  poseRank: 1,
  score: -8,
  rawScore: -5,
  rmsdLb: 0,
  rmsdUb: 0,
  molBlock: atomAt(at),
});

/** What encryption adds to an object. */
const ENVELOPE_BYTES = 48;

/** What lies in the object store. */
async function files({ orgId }: Organization, purpose: string): Promise<{ objects: bigint; sizeBytes: bigint }> {
  const folder = join(world.objectFolder, 'orgs', orgId, purpose);
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const sizes = entries
    .filter((entry) => entry.isFile())
    .map(async (entry) => (await stat(join(entry.parentPath, entry.name))).size - ENVELOPE_BYTES);
  const bytes = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
  return { objects: BigInt(sizes.length), sizeBytes: BigInt(bytes) };
}

test('structures and exports are told as the object store has them, to catalog', async () => {
  const org = await world.organization();
  const asCatalog = world.as('catalog', StorageService);
  expect(await asCatalog.describeStorage({ orgId: org.orgId })).toMatchObject({ stored: [] });
  const { jobId, runnable } = await world.materialize(org, { smiles: newSmiles(7), plans: [docking()] });
  for (const { taskExecutionId } of runnable) {
    await world.run(org, taskExecutionId, (_smiles, itemNo) => ({ score: -8, poses: [pose(itemNo)] }));
  }
  const exportId = await beginExport(world.exports, org, { jobId, format: ExportFormat.CSV });
  await endedExport(world.exports, org, jobId, exportId);
  const { stored } = await asCatalog.describeStorage({ orgId: org.orgId });
  expect(stored).toMatchObject([
    { purpose: 'exports', ...(await files(org, 'exports')) },
    { purpose: 'poses', ...(await files(org, 'poses')) },
  ]);
  expect(stored.every(({ objects, sizeBytes }) => objects > 0n && sizeBytes > 0n)).toBe(true);
});

test('an organization without a database is told so; nobody but catalog may ask', async () => {
  const request = { orgId: uuidv7() };
  const unknown = await failureOf(world.as('catalog', StorageService).describeStorage(request));
  expect(unknown?.reason).toBe('TENANT_NOT_PROVISIONED');
  expect((await failureOf(world.as('worker', StorageService).describeStorage(request)))?.code).toBe(
    'permission_denied',
  );
});
