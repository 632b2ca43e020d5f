import type { Client } from '@connectrpc/connect';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { CacheMiss, JobPreviewService, MoleculeService } from '@mad/proto/catalog';
import { reasonOf, violationsOf } from '@mad/rpc';
import { errorOf } from './errors.ts';
import { REFERENCE, startJobWorld, type JobWorld, type Lab } from './job-world.ts';
import { fault } from './results-neighbour.ts';

let world: JobWorld;
let lab: Lab;
let previews: Client<typeof JobPreviewService>;

beforeAll(async () => {
  world = await startJobWorld();
});
beforeEach(async () => {
  lab = await world.lab();
  previews = await world.catalog.member(JobPreviewService, world.catalog.identity.organizations.get(lab.orgId)!);
  world.results.lookUps.length = 0;
});
afterAll(() => world.close());

const request = () => ({ orgId: lab.orgId, pipelineId: lab.pipelineId, parameters: REFERENCE });

test('a library is looked up with the tasks the job would have, and nothing is made', async () => {
  const { moleculeSetId } = lab;
  const demand = { minConfidence: 0.5, maxAgeS: 60 };
  const seen = await previews.previewJob({ ...request(), moleculeSetId, ...demand, explain: 5 });
  expect(seen).toMatchObject({
    molecules: 3n,
    tasks: [{ taskId: 'rank', hits: 1n, misses: [{ miss: CacheMiss.NEVER_COMPUTED, items: 2n }] }],
    explained: [{ smiles: 'CCO' }, { smiles: 'CCCCO' }],
  });
  const [asked] = world.results.lookUps;
  expect(asked).toMatchObject({ orgId: lab.orgId, smiles: ['CCO', 'CCCO', 'CCCCO'], ...demand });
  expect((await lab.jobs.listJobs({ orgId: lab.orgId })).jobs).toEqual([]);
  const made = await lab.submit({ maxAgeS: 60 });
  const materialized = world.results.runs.get(made.jobId)!.request;
  expect(asked!.tasks).toEqual(materialized.tasks);
  expect(materialized.maxAgeS).toBe(60);
});

test('molecules by their ids are looked up as often as they are given, in batches', async () => {
  const [a, b] = lab.moleculeIds;
  const moleculeIds = [...Array.from({ length: 6_000 }, () => a!), b!];
  const seen = await previews.previewJob({ ...request(), moleculeIds, explain: 3 });
  expect(seen).toMatchObject({ molecules: 6_001n, tasks: [{ hits: 1n, misses: [{ items: 6_000n }] }] });
  expect(seen.explained).toHaveLength(3);
  expect(world.results.lookUps.map(({ smiles, explain }) => [smiles.length, explain])).toEqual([
    [5_000, 3],
    [1_001, 0],
  ]);
});

test('a library that is still open is looked up as it is', async () => {
  const by = { orgId: lab.orgId, requestId: uuidv7() };
  const { moleculeSet } = await lab.sets.createMoleculeSet({ ...by, name: 'open' });
  const { moleculeSetId } = moleculeSet!;
  expect(violationsOf(await errorOf(previews.previewJob({ ...request(), moleculeSetId })))).toMatchObject([
    { field: 'molecule_set_id' },
  ]);
  const org = world.catalog.identity.organizations.get(lab.orgId)!;
  const molecules = await world.catalog.member(MoleculeService, org);
  await molecules.registerMolecules({ ...by, requestId: uuidv7(), moleculeSetId, rows: [{ smiles: 'CCCO' }] });
  expect(await previews.previewJob({ ...request(), moleculeSetId })).toMatchObject({ molecules: 1n });
});

test('what cannot be planned is refused as its submission would be, and a stranger’s library is not found', async () => {
  const { moleculeSetId } = lab;
  const fields = async (call: Promise<unknown>) => violationsOf(await errorOf(call)).map(({ field }) => field);
  expect(await fields(previews.previewJob({ ...request(), moleculeSetId, parameters: {} }))).toEqual([
    'parameters.reference',
  ]);
  expect(await fields(previews.previewJob({ ...request() }))).toEqual(['molecule_set_id']);
  const other = await world.lab();
  for (const change of [{ moleculeSetId: other.moleculeSetId }, { moleculeIds: [other.moleculeIds[0]!] }]) {
    const error = await errorOf(previews.previewJob({ ...request(), ...change }));
    expect([error.code, reasonOf(error)]).toEqual([Code.NotFound, 'RESOURCE_NOT_FOUND']);
  }
});

test('results that does not answer is told as it is', async () => {
  world.results.faults.set('preview', { error: fault(Code.Unavailable, 'DATABASE_UNAVAILABLE'), times: 1 });
  const error = await errorOf(previews.previewJob({ ...request(), moleculeSetId: lab.moleculeSetId }));
  expect([error.code, reasonOf(error)]).toEqual([Code.Unavailable, 'DATABASE_UNAVAILABLE']);
});
