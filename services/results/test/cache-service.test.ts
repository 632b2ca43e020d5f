import { createClient, type Client } from '@connectrpc/connect';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { serviceTokenInterceptor } from '@mad/auth';
import { uuidv7 } from '@mad/process';
import { CacheMiss, CachePolicy } from '@mad/proto/catalog';
import { CacheEntryState, CacheService } from '@mad/proto/results';
import { grpcTransport } from '@mad/rpc';
import { serviceToken, userToken } from '@mad/testing';
import { firstBrokenLine } from '../src/runs/audit.ts';
import type { AuditRow } from '../src/db/entities/audit.ts';
import { failureOf } from './support/errors.ts';
import {
  bearer,
  docking,
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

async function run(options: JobOptions = {}, score = 0.5) {
  const made = await world.materialize(org, { smiles: ['C', 'CC', 'CCC'], ...options });
  for (const { taskExecutionId } of made.runnable) {
    await world.run(org, taskExecutionId, () => ({ score, confidenceScore: 0.5 }));
  }
  return made;
}

const list = async (request: { task?: string; state?: CacheEntryState; pageSize?: number } = {}) => {
  const found = [];
  let pageToken = '';
  do {
    const page = await cache.listCacheEntries({ orgId: org.orgId, ...request, pageToken }, as());
    found.push(...page.entries);
    pageToken = page.nextPageToken;
  } while (pageToken !== '');
  return found;
};

const explain = (jobId: string, itemNo = 1) => cache.explainCacheLookUp({ orgId: org.orgId, jobId, itemNo }, as());

test('what is kept is listed newest first, page by page, by task and by state', async () => {
  await newOrg();
  const { jobId } = await run();
  const made = await run({ plans: [similarity({ task: 'other.task' })] });
  const all = await list();
  expect(all.map((one) => one.source!.jobId)).toEqual([made.jobId, made.jobId, made.jobId, jobId, jobId, jobId]);
  expect(all[0]).toMatchObject({ state: CacheEntryState.VALID, hits: 0n, version: 1, task: 'other.task' });
  expect(all[0]!.source).toMatchObject({ engine: 'rdkit@2026.09.1', taskId: 'screen', confidenceScore: 0.5 });
  expect(await list({ pageSize: 1 })).toEqual(all);
  expect(await list({ pageSize: 2, task: 'rdkit.similarity' })).toEqual(all.slice(3));
  expect(await list({ state: CacheEntryState.PINNED })).toEqual([]);
  expect(await list({ state: CacheEntryState.VALID })).toEqual(all);
});

test('a pinned entry outlives its time and every better result, until it is let go; both are in the audit log', async () => {
  await newOrg();
  const { jobId } = await run({ smiles: ['C'] });
  const [entry] = await list();
  const key = { orgId: org.orgId, task: entry!.task, inputSignature: entry!.source!.inputSignature };
  const pinned = await cache.pinCacheEntry(key, as());
  expect(pinned.entry).toMatchObject({ state: CacheEntryState.PINNED });
  await cache.pinCacheEntry(key, as());
  await rows(org, `UPDATE result_cache SET expires_at = now() - interval '1 day'`);
  await run({ smiles: ['C'], policy: CachePolicy.REFRESH });
  expect((await list({ state: CacheEntryState.PINNED })).map((one) => one.source!.jobId)).toEqual([jobId]);
  expect((await run({ smiles: ['C'] })).progress!.counters).toMatchObject({ cached: 1n });

  const free = await cache.unpinCacheEntry(key, as());
  expect(free.entry).toMatchObject({ state: CacheEntryState.VALID });
  const again = await run({ smiles: ['C'] }, 0.7);
  expect(again.progress!.counters).toMatchObject({ cached: 0n });
  const { entry: now, history } = await cache.getCacheEntry(key, as());
  expect(now).toMatchObject({ version: 2, hits: 0n, source: { jobId: again.jobId } });
  expect(history).toMatchObject([
    {
      version: 1,
      reason: 'expired',
      hits: 1n,
      state: CacheEntryState.VALID,
      source: { jobId, engine: 'rdkit@2026.09.1' },
    },
  ]);
  const log = await rows<Omit<AuditRow, 'seq'> & { seq: string }>(org, 'SELECT * FROM audit_log ORDER BY seq');
  expect(
    log.filter(({ action }) => action.startsWith('cache.')).map(({ action, job_id: job }) => [action, job]),
  ).toEqual([
    ['cache.pin', jobId],
    ['cache.unpin', jobId],
  ]);
  expect(firstBrokenLine(log.map((row) => ({ ...row, seq: Number(row.seq) })))).toBeUndefined();
});

test('an invalid entry is not pinned: it would answer again', async () => {
  await newOrg();
  await run({ smiles: ['C'] });
  const [entry] = await list();
  await rows(org, `UPDATE result_cache SET status = 'invalid'`);
  const key = { orgId: org.orgId, task: entry!.task, inputSignature: entry!.source!.inputSignature };
  expect(await failureOf(cache.pinCacheEntry(key, as()))).toMatchObject({ reason: 'STATE_CONFLICT' });
  expect(await failureOf(cache.unpinCacheEntry(key, as()))).toMatchObject({ reason: 'STATE_CONFLICT' });
});

test('a miss is explained by the earlier result that differs least, and in what', async () => {
  await newOrg();
  await run({ smiles: ['C'], plans: [similarity({ engine: 'rdkit@2025.03.1', recipe: 'old' })] });
  const near = await run({ smiles: ['C', 'CC'], plans: [similarity({ parameters: { reference: 'CCN', radius: 2 } })] });
  await run({ smiles: ['C'], plans: [similarity({ task: 'other.task' })] });
  const { jobId } = await run({
    smiles: ['C', 'CCC'],
    plans: [similarity({ parameters: { reference: 'CCO', radius: 2 } })],
  });
  await run({ smiles: ['C'], plans: [similarity({ parameters: { reference: 'CCO', radius: 2, later: true } })] });

  const told = await explain(jobId);
  expect(told).toMatchObject({ cached: false, lookedUp: true, miss: CacheMiss.NEVER_COMPUTED });
  // Meanwhile its own result is kept, and would answer.
  expect(told.now).toMatchObject({
    miss: CacheMiss.UNSPECIFIED,
    source: { jobId },
    smiles: 'C',
    task: 'rdkit.similarity',
  });
  expect(told.now!.nearest).toMatchObject({ jobId: near.jobId, taskId: 'screen', itemNo: 1 });
  expect(told.now!.differences).toMatchObject([{ component: 'parameters.reference', from: '"CCN"', to: '"CCO"' }]);

  const alone = await explain(jobId, 2);
  expect(alone.now!.nearest).toBeUndefined();
  expect(alone.now!.differences).toEqual([]);
});

test('an item that was answered, one that nobody looked up, and one that found too little are told apart', async () => {
  await newOrg();
  await run({ smiles: ['C'] });
  const answered = await run({ smiles: ['C'] });
  expect(await explain(answered.jobId)).toMatchObject({ cached: true, lookedUp: true, miss: CacheMiss.UNSPECIFIED });
  const refresh = await run({ smiles: ['C'], policy: CachePolicy.REFRESH });
  expect(await explain(refresh.jobId)).toMatchObject({ cached: false, lookedUp: false, miss: CacheMiss.UNSPECIFIED });
  const strict = await run({ smiles: ['C'], minConfidence: 0.9 });
  expect(await explain(strict.jobId)).toMatchObject({
    miss: CacheMiss.LOW_CONFIDENCE,
    now: { miss: CacheMiss.LOW_CONFIDENCE, source: { jobId: refresh.jobId } },
  });
});

test('a preview counts hits and misses by reason, as the job then finds them, and changes nothing', async () => {
  await newOrg();
  const smiles = ['C', 'CC', 'CCC', 'CCCC', 'C'];
  await run({ smiles: smiles.slice(0, 3) });
  await rows(org, `UPDATE result_cache SET status = 'invalid' WHERE smiles = 'CC'`);
  const transport = grpcTransport(world.address(), {
    interceptors: [serviceTokenInterceptor(() => serviceToken('catalog'))],
  });
  try {
    const plan = similarity();
    const tasks = [plan, docking()];
    const before = await rows(org, 'SELECT cache_key, status, hit_count, last_used_at FROM result_cache ORDER BY 1');
    const seen = await createClient(CacheService, transport).previewLookUps({
      orgId: org.orgId,
      tasks,
      smiles,
      explain: 2,
    });
    expect(seen.tasks).toMatchObject([
      {
        taskId: 'screen',
        task: 'rdkit.similarity',
        hits: 3n,
        misses: [
          { miss: CacheMiss.INVALIDATED, items: 1n },
          { miss: CacheMiss.NEVER_COMPUTED, items: 1n },
        ],
      },
      { taskId: 'dock', hits: 0n, misses: [{ miss: CacheMiss.NEVER_COMPUTED, items: 5n }] },
    ]);
    expect(seen.explained).toMatchObject([
      { smiles: 'CC', miss: CacheMiss.INVALIDATED },
      { smiles: 'CCCC', miss: CacheMiss.NEVER_COMPUTED },
    ]);
    expect(await rows(org, 'SELECT cache_key, status, hit_count, last_used_at FROM result_cache ORDER BY 1')).toEqual(
      before,
    );
    const made = await world.materialize(org, { smiles, plans: [plan] });
    expect(made.progress!.counters).toMatchObject({ cached: 3n });
    const refused = createClient(CacheService, transport).previewLookUps({
      orgId: org.orgId,
      tasks,
      smiles: ['C\u041e'],
    });
    expect(await failureOf(refused)).toMatchObject({ fields: ['smiles[0]'] });
  } finally {
    transport.close();
  }
});

test('statistics count task by task what can be used, what is pinned, expired or invalid, and the hits', async () => {
  await newOrg();
  await run();
  await run();
  await run({ smiles: ['C'], plans: [similarity({ task: 'other.task' })] });
  await rows(
    org,
    `UPDATE result_cache SET status = 'pinned', expires_at = now() WHERE smiles = 'C' AND task LIKE 'rdkit%'`,
  );
  await rows(org, `UPDATE result_cache SET status = 'invalid' WHERE smiles = 'CC'`);
  await rows(org, `UPDATE result_cache SET expires_at = now() WHERE smiles = 'CCC'`);
  const { tasks } = await cache.getCacheStatistics({ orgId: org.orgId }, as());
  expect(tasks).toMatchObject([
    { task: 'other.task', usable: 1n, pinned: 0n, expired: 0n, invalid: 0n, hits: 0n },
    { task: 'rdkit.similarity', usable: 1n, pinned: 1n, expired: 1n, invalid: 1n, hits: 3n },
  ]);
});

test('what is not there is not found, and who may only read does not pin', async () => {
  await newOrg();
  const { jobId } = await run({ smiles: ['C'] });
  const key = { orgId: org.orgId, task: 'rdkit.similarity', inputSignature: 'a'.repeat(64) };
  const notFound = { reason: 'RESOURCE_NOT_FOUND' };
  expect(await failureOf(cache.getCacheEntry(key, as()))).toMatchObject(notFound);
  expect(await failureOf(cache.pinCacheEntry(key, as()))).toMatchObject(notFound);
  expect(await failureOf(explain(uuidv7()))).toMatchObject(notFound);
  expect(await failureOf(explain(jobId, 9))).toMatchObject(notFound);
  const reader = bearer(await userToken({ orgId: org.orgId, permissions: ['cache.read'] }));
  expect(await failureOf(cache.pinCacheEntry(key, reader))).toMatchObject({ reason: 'PERMISSION_MISSING' });
  expect(await failureOf(cache.listCacheEntries({ orgId: org.orgId, pageToken: 'x' }, as()))).toMatchObject({
    fields: ['page_token'],
  });
});
