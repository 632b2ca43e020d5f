import type { MessageInitShape } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient, type Client } from '@connectrpc/connect';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { CachePolicy } from '@mad/proto/catalog';
import { CacheService, ExportFormat, ExportService, type CachePredicateSchema } from '@mad/proto/results';
import { errorMetadataOf, reasonOf } from '@mad/rpc';
import { userToken } from '@mad/testing';
import type { AuditRow } from '../src/db/entities/audit.ts';
import { InvalidationCounts } from '../src/db/migrations/2026_11_26_1420_invalidation_counts.ts';
import { resultsMigrations } from '../src/index.ts';
import { firstBrokenLine } from '../src/runs/audit.ts';
import { failureOf } from './support/errors.ts';
import {
  bearer,
  openWorld,
  rows,
  similarity,
  type JobOptions,
  type Organization,
  type World,
} from './support/world.ts';

let world: World;
let org: Organization;
let cache: Client<typeof CacheService>;

beforeAll(async () => {
  world = await openWorld();
  cache = createClient(CacheService, world.transport);
});

afterAll(() => world.close());

async function newOrg(): Promise<void> {
  org = await world.organization();
}

const as = () => bearer(org.token);

async function run(options: JobOptions = {}) {
  const made = await world.materialize(org, { smiles: ['C', 'CC', 'CCC'], ...options });
  for (const { taskExecutionId } of made.runnable) await world.run(org, taskExecutionId, () => ({ score: 0.5 }));
  return { jobId: made.jobId, cached: Number(made.progress!.counters!.cached) };
}

type Predicate = MessageInitShape<typeof CachePredicateSchema>;
const invalidate = (predicate: Predicate, more: { requestId?: string; reason?: string; dryRun?: boolean } = {}) =>
  cache.invalidateCacheEntries(
    { orgId: org.orgId, requestId: uuidv7(), predicate, reason: 'the receptor was wrong', ...more },
    as(),
  );
const undo = (invalidationId: string) => cache.undoCacheInvalidation({ orgId: org.orgId, invalidationId }, as());

/** How every entry stands, and what came before it. */
const state = async () => [
  await rows(org, 'SELECT cache_key, version, status FROM result_cache ORDER BY 1'),
  await rows(org, 'SELECT cache_key, version, status FROM result_cache_history ORDER BY 1, 2'),
];

const flags = async (jobId: string) =>
  (await world.jobRuns.listWorkItems({ orgId: org.orgId, jobId }, as())).items.map((item) => item.resultInvalidated);

test('a dry run counts results, and the jobs and items they answered; what it counts is what is then taken', async () => {
  await newOrg();
  const { jobId } = await run();
  await run({ smiles: ['C', 'CC', 'C'] });
  await run({ smiles: ['C'] });
  const before = await state();
  const counted = await invalidate({ jobId }, { dryRun: true, reason: '' });
  expect(counted).toMatchObject({ items: 4n, invalidation: { entries: 3n, jobs: 2n, invalidationId: '' } });
  expect(await state()).toEqual(before);
  expect((await cache.listCacheInvalidations({ orgId: org.orgId }, as())).invalidations).toEqual([]);
  expect(await invalidate({ jobId })).toMatchObject({ items: 4n, invalidation: { entries: 3n, jobs: 2n } });
  expect(await run()).toMatchObject({ cached: 0 });
});

test('a dry run counts the exports of jobs that computed the results or were answered by them', async () => {
  await newOrg();
  const { jobId } = await run();
  const { jobId: answered } = await run({ smiles: ['C'] });
  const { jobId: other } = await run({ smiles: ['CCCC'] });
  const exports = createClient(ExportService, world.transport);
  const format = ExportFormat.CSV;
  for (const one of [jobId, answered, answered, other]) {
    await exports.createExport({ orgId: org.orgId, jobId: one, requestId: uuidv7(), format }, as());
  }
  expect(await invalidate({ jobId }, { dryRun: true })).toMatchObject({ items: 1n, exports: 3n });
  expect(await invalidate({ smiles: 'CCCC' }, { dryRun: true })).toMatchObject({ items: 0n, exports: 1n });
  expect(await invalidate({ smiles: 'CC' })).toMatchObject({ items: 0n, exports: 1n });
});

test('what was answered keeps its rows and says so, its source too; undoing gives exactly the same back', async () => {
  await newOrg();
  const first = await run();
  const second = await run();
  const [entry] = await rows<{ input_signature: string }>(
    org,
    `SELECT input_signature FROM result_cache WHERE smiles = 'C'`,
  );
  const key = { orgId: org.orgId, task: 'rdkit.similarity', inputSignature: entry!.input_signature };
  await cache.pinCacheEntry(key, as());
  await rows(org, `UPDATE result_cache SET status = 'invalid' WHERE smiles = 'CCC'`);
  const before = await state();
  const { invalidation } = await invalidate({ task: 'rdkit.similarity', includePinned: true });
  // The third was invalid already: it is none of this one's, and stays invalid.
  expect(invalidation).toMatchObject({ entries: 2n, reason: 'the receptor was wrong' });
  expect(await flags(first.jobId)).toEqual([true, true, true]);
  expect(await flags(second.jobId)).toEqual([true, true, true]);
  const { hits } = await world.jobRuns.listHits({ orgId: org.orgId, jobId: second.jobId }, as());
  expect(hits.map((hit) => [hit.score, hit.resultInvalidated])).toEqual(hits.map(() => [0.5, true]));

  const undone = await undo(invalidation!.invalidationId);
  expect(undone.invalidation).toMatchObject({ restored: 2n, entries: 2n });
  expect(undone.invalidation!.undoTime).toBeDefined();
  expect(await state()).toEqual(before);
  expect(await flags(second.jobId)).toEqual([false, false, true]);
  expect(await undo(invalidation!.invalidationId)).toEqual(undone);
  expect(await run()).toMatchObject({ cached: 2 });
});

test('a result replaced meanwhile is not given back as the source, but is not called invalid any more', async () => {
  await newOrg();
  const first = await run({ smiles: ['C'] });
  const { invalidation } = await invalidate({ smiles: 'C' });
  const second = await run({ smiles: ['C'] });
  expect(second.cached).toBe(0);
  expect(await flags(first.jobId)).toEqual([true]);
  expect(await flags(second.jobId)).toEqual([false]);
  expect((await undo(invalidation!.invalidationId)).invalidation).toMatchObject({ entries: 1n, restored: 0n });
  expect(await flags(first.jobId)).toEqual([false]);
  expect(await rows(org, 'SELECT canonical_job_id AS job, status FROM result_cache')).toEqual([
    { job: second.jobId, status: 'valid' },
  ]);
});

test('pinned results are left alone unless they are meant', async () => {
  await newOrg();
  await run({ smiles: ['C'] });
  await rows(org, `UPDATE result_cache SET status = 'pinned'`);
  expect((await invalidate({ task: 'rdkit.similarity' })).invalidation).toMatchObject({ entries: 0n });
  expect((await invalidate({ task: 'rdkit.similarity', includePinned: true })).invalidation).toMatchObject({
    entries: 1n,
  });
});

test('a rule means what all of it says', async () => {
  await newOrg();
  const { jobId } = await run({ smiles: ['C', 'CC'] });
  await run({ smiles: ['C'], plans: [similarity({ engine: 'rdkit@2027.03.1' })] });
  await run({ smiles: ['C'], plans: [similarity({ engine: 'rdkit2@1', task: 'other.task' })] });
  await rows(org, `UPDATE result_cache SET created_at = created_at - interval '1 day' WHERE canonical_job_id = $1`, [
    jobId,
  ]);
  const hoursAgo = (hours: number) => timestampFromDate(new Date(Date.now() - hours * 3_600_000));
  const count = async (predicate: Predicate) =>
    Number((await invalidate(predicate, { dryRun: true })).invalidation!.entries);
  expect(await count({ task: 'rdkit.similarity' })).toBe(3);
  expect(await count({ task: 'other.task' })).toBe(1);
  expect(await count({ engine: 'rdkit' })).toBe(3);
  expect(await count({ engine: 'rdkit@2027.03.1' })).toBe(1);
  expect(await count({ engine: 'rdk' })).toBe(0);
  expect(await count({ smiles: 'C' })).toBe(3);
  expect(await count({ jobId })).toBe(2);
  expect(await count({ computedBefore: hoursAgo(1) })).toBe(2);
  expect(await count({ computedFrom: hoursAgo(1) })).toBe(2);
  expect(await count({ computedFrom: hoursAgo(48), computedBefore: hoursAgo(1), smiles: 'CC' })).toBe(1);
  expect(await count({ jobId, engine: 'rdkit@2027.03.1' })).toBe(0);
});

test('a repeat with the same request changes nothing; invalidations are listed and in the audit log', async () => {
  await newOrg();
  await run();
  const requestId = uuidv7();
  const one = await invalidate({ smiles: 'C' }, { requestId });
  await run({ smiles: ['C'] });
  const again = await invalidate({ smiles: 'C' }, { requestId });
  expect(again.invalidation).toEqual(one.invalidation);
  expect(await rows(org, `SELECT status FROM result_cache WHERE smiles = 'C'`)).toEqual([{ status: 'valid' }]);
  const two = await invalidate({ smiles: 'CC' });
  await undo(two.invalidation!.invalidationId);
  const pages = [];
  for (let pageToken = '', more = true; more; more = pageToken !== '') {
    const page = await cache.listCacheInvalidations({ orgId: org.orgId, pageSize: 1, pageToken }, as());
    pages.push(page.invalidations.map(({ invalidationId }) => invalidationId));
    pageToken = page.nextPageToken;
  }
  expect(pages).toEqual([[two.invalidation!.invalidationId], [requestId]]);
  const log = await rows<Omit<AuditRow, 'seq'> & { seq: string }>(org, 'SELECT * FROM audit_log ORDER BY seq');
  expect(
    log.filter(({ action }) => action.startsWith('cache.')).map(({ action, metadata }) => [action, metadata]),
  ).toEqual([
    ['cache.invalidate', { invalidation_id: requestId, entries: 1, jobs: 0, reason: 'the receptor was wrong' }],
    ['cache.invalidate', expect.objectContaining({ entries: 1 })],
    ['cache.undo_invalidation', { invalidation_id: two.invalidation!.invalidationId, restored: 1 }],
  ]);
  expect(firstBrokenLine(log.map((row) => ({ ...row, seq: Number(row.seq) })))).toBeUndefined();
});

test('a repeat is answered all that the first was, its items and exports too, also when they are more by now', async () => {
  await newOrg();
  const { jobId } = await run();
  const { jobId: answered } = await run({ smiles: ['C', 'CC'] });
  const exports = createClient(ExportService, world.transport);
  const request = { orgId: org.orgId, format: ExportFormat.CSV };
  await exports.createExport({ ...request, jobId: answered, requestId: uuidv7() }, as());
  const requestId = uuidv7();
  const first = await invalidate({ jobId }, { requestId });
  expect(first).toMatchObject({ items: 2n, exports: 1n, invalidation: { entries: 3n, jobs: 1n } });
  await exports.createExport({ ...request, jobId, requestId: uuidv7() }, as());
  expect(await invalidate({ jobId }, { requestId })).toEqual(first);
});

test('a repeat that asks for something else is refused, naming what differs, and changes nothing', async () => {
  await newOrg();
  await run();
  const requestId = uuidv7();
  await invalidate({ smiles: 'C' }, { requestId });
  const before = await state();
  const again = async (predicate: Predicate, reason = 'the receptor was wrong') => {
    const error = await invalidate(predicate, { requestId, reason }).then(
      () => undefined,
      (thrown: unknown) => ConnectError.from(thrown),
    );
    return [error?.code, reasonOf(error), errorMetadataOf(error)['fields']];
  };
  const reused = (fields: string) => [Code.AlreadyExists, 'REQUEST_ID_REUSED', fields];
  expect(await again({ smiles: 'CC' })).toEqual(reused('predicate'));
  expect(await again({ smiles: 'C', includePinned: true })).toEqual(reused('predicate'));
  expect(await again({ smiles: 'C' }, 'another reason')).toEqual(reused('reason'));
  expect(await again({ smiles: 'CC' }, 'another reason')).toEqual(reused('predicate,reason'));
  expect(await again({ smiles: 'C' }, ' the receptor was wrong ')).toEqual([undefined, undefined, undefined]);
  expect(await state()).toEqual(before);
});

test('in a tenant of the version before its counts were kept, invalidating works, and is listed', async () => {
  org = await world.organization(resultsMigrations.slice(0, resultsMigrations.indexOf(InvalidationCounts)));
  await run();
  await run();
  const requestId = uuidv7();
  const first = await invalidate({ smiles: 'C' }, { requestId });
  expect(first).toMatchObject({ items: 1n, exports: 0n, invalidation: { entries: 1n, jobs: 1n } });
  expect((await invalidate({ smiles: 'C' }, { requestId })).invalidation).toEqual(first.invalidation);
  const { invalidations } = await cache.listCacheInvalidations({ orgId: org.orgId }, as());
  expect(invalidations).toEqual([first.invalidation]);
});

test('while jobs finish the same inputs, nothing waits in a circle and each entry is either taken or replaced', async () => {
  await newOrg();
  const smiles = Array.from({ length: 40 }, (_one, index) => 'C'.repeat(index + 1));
  await run({ smiles });
  const made = await world.materialize(org, { smiles: smiles.toReversed(), policy: CachePolicy.REFRESH });
  const answers = await Promise.all([
    ...made.runnable.map(({ taskExecutionId }) => world.run(org, taskExecutionId, () => ({ score: 1 }))),
    ...Array.from({ length: 4 }, () => invalidate({ task: 'rdkit.similarity' })),
  ]);
  expect(answers).toHaveLength(made.runnable.length + 4);
  const [{ invalid } = { invalid: -1 }] = await rows<{ invalid: number }>(
    org,
    `SELECT count(*)::int AS invalid FROM result_cache c WHERE status = 'invalid' AND NOT EXISTS (
       SELECT 1 FROM cache_invalidation_entries e WHERE e.cache_key = c.cache_key AND e.version = c.version)`,
  );
  expect(invalid).toBe(0);
});

test('bad rules and bad callers are refused by name', async () => {
  await newOrg();
  const fails = async (call: Promise<unknown>) => failureOf(call);
  expect(await fails(invalidate({}))).toMatchObject({ fields: ['predicate'] });
  expect(await fails(invalidate({ includePinned: true }))).toMatchObject({ fields: ['predicate'] });
  expect(await fails(invalidate({ jobId: 'x' }))).toMatchObject({ fields: ['predicate.job_id'] });
  expect(await fails(invalidate({ task: 'a\0' }))).toMatchObject({ fields: ['predicate.task'] });
  expect(await fails(invalidate({ task: 'a' }, { reason: ' ' }))).toMatchObject({ fields: ['reason'] });
  const now = timestampFromDate(new Date());
  expect(await fails(invalidate({ computedFrom: now, computedBefore: now }))).toMatchObject({ fields: ['predicate'] });
  expect(await fails(undo(uuidv7()))).toMatchObject({ reason: 'RESOURCE_NOT_FOUND' });
  const reader = bearer(await userToken({ orgId: org.orgId, permissions: ['cache.read'] }));
  const request = { orgId: org.orgId, requestId: uuidv7(), predicate: { task: 'a' }, dryRun: true };
  expect(await fails(cache.invalidateCacheEntries(request, reader))).toMatchObject({ reason: 'PERMISSION_MISSING' });
});
