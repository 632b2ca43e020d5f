import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createClient } from '@connectrpc/connect';
import fc from 'fast-check';
import { uuidv7 } from '@mad/process';
import { CachePolicy } from '@mad/proto/catalog';
import { CacheService } from '@mad/proto/results';
import { finished, idAt, midMonth, retentionOf, similarity, unsound } from './support/retention.ts';
import { bearer, docking, openWorld, rows, type Organization, type World } from './support/world.ts';

/** Whatever jobs there are and whatever the policy says: what a preview counts is what is deleted, and nothing else. */

let world: World;

beforeAll(async () => {
  // Jobs are dropped in several slices, and some months keep too much to be made anew.
  world = await openWorld({ retentionSliceRows: 3 });
});

afterAll(() => world.close());

const MINUTE_MS = 60_000;
const PIPELINES = [uuidv7(), uuidv7()];

const job = fc.record({
  docks: fc.boolean(),
  /** Molecules by number: equal ones answer each other, in a job and between jobs. */
  molecules: fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 1, maxLength: 8 }),
  month: fc.integer({ min: -3, max: 0 }),
  pipeline: fc.constantFrom('', ...PIPELINES),
  endedDaysAgo: fc.integer({ min: 0, max: 100 }),
  policy: fc.constantFrom(CachePolicy.USE, CachePolicy.USE, CachePolicy.REFRESH),
});
const rule = fc.record({ keepDays: fc.constantFrom(0, 20, 50, 80), keepTopHits: fc.constantFrom(0, 1, 3) });
const policy = fc.record({ rest: fc.option(rule), own: fc.option(rule) });
const scene = fc.record({
  jobs: fc.array(job, { minLength: 1, maxLength: 6 }),
  pins: fc.array(fc.nat(20), { maxLength: 2 }),
  policies: fc.array(policy, { minLength: 1, maxLength: 3 }),
});

async function countAll(org: Organization) {
  const [found] = await rows<Record<'items' | 'poses' | 'events' | 'entries', number>>(
    org,
    `SELECT (SELECT count(*) FROM task_results)::int AS items,
      (SELECT count(*) FROM docking_results JOIN task_results USING (job_id, task_id, item_no))::int AS poses,
      (SELECT count(*) FROM job_events JOIN jobs USING (job_id) WHERE results_dropped_at IS NULL)::int AS events, (SELECT count(*) FROM result_cache)::int AS entries`,
  );
  return found!;
}

/** The best hits of every task, by job, that a policy keeps: they are there, and each has what it had. */
const hitsOf = (org: Organization) =>
  rows<{ job_id: string; smiles: string; poses: number; rank: number }>(
    org,
    `SELECT t.job_id, t.smiles, (SELECT count(*) FROM docking_results d WHERE d.job_id = coalesce(t.reused_from_job_id, t.job_id)
        AND d.task_id = coalesce(t.reused_from_task_id, t.task_id) AND d.item_no = coalesce(t.reused_from_item_no, t.item_no))::int AS poses,
      row_number() OVER (PARTITION BY t.job_id ORDER BY CASE WHEN t.score < 0 THEN t.score ELSE -t.score END, CASE WHEN t.score < 0 THEN t.item_no ELSE -t.item_no END)::int AS rank
    FROM task_results t WHERE t.status IN ('scored', 'cached') AND t.score IS NOT NULL ORDER BY t.job_id, rank`,
  );

test('what a preview counts is what is deleted; the best hits stay whole; nothing dangles; once is enough', async () => {
  await fc.assert(
    fc.asyncProperty(scene, async ({ jobs, pins, policies }) => {
      const org = await world.organization();
      const retention = retentionOf(world, org);
      const cache = createClient(CacheService, world.transport);
      const keepers = new Map<string, string>();
      for (const { docks, molecules, month, pipeline, endedDaysAgo, policy: cachePolicy } of jobs) {
        const smiles = molecules.map((length) => 'C'.repeat(length));
        const plans = [docks ? docking() : similarity()];
        const scoreOf = (one: string) => (one.length === 8 ? undefined : docks ? -one.length : one.length / 10);
        const jobId = idAt(Math.min(midMonth(month), Date.now() - MINUTE_MS));
        await finished(world, org, {
          jobId,
          smiles,
          plans,
          pipelineId: pipeline,
          policy: cachePolicy,
          endedDaysAgo,
          scoreOf,
        });
        keepers.set(jobId, pipeline);
      }
      const entries = await rows<{ task: string; input_signature: string }>(
        org,
        'SELECT task, input_signature FROM result_cache ORDER BY 1, 2',
      );
      for (const pin of pins) {
        const entry = entries[pin % Math.max(1, entries.length)];
        if (entry === undefined) continue;
        const key = { orgId: org.orgId, task: entry.task, inputSignature: entry.input_signature };
        await cache.pinCacheEntry(key, bearer(org.token));
      }
      for (const { rest, own } of policies) {
        const rules = [
          ...(rest === null ? [] : [rest]),
          ...(own === null ? [] : [{ ...own, pipelineId: PIPELINES[0]! }]),
        ];
        await retention.set(rules);
        const [before, hits] = [await countAll(org), await hitsOf(org)];
        const preview = await retention.preview();
        expect(await countAll(org)).toEqual(before);
        const { deleted } = await retention.apply();
        expect(deleted).toEqual(preview);
        const after = await countAll(org);
        expect({
          items: BigInt(before.items - after.items),
          poses: BigInt(before.poses - after.poses),
          events: BigInt(before.events - after.events),
          entries: BigInt(before.entries - after.entries),
        }).toEqual({
          items: deleted!.items,
          poses: deleted!.poses,
          events: deleted!.events,
          entries: deleted!.cacheEntries,
        });
        const left = new Map((await hitsOf(org)).map((hit) => [`${hit.job_id} ${hit.rank}`, hit]));
        for (const hit of hits) {
          const its = keepers.get(hit.job_id) === PIPELINES[0] ? (own ?? rest) : rest;
          const keep = its === null || its.keepDays === 0 ? Infinity : its.keepTopHits;
          if (hit.rank <= keep) expect(left.get(`${hit.job_id} ${hit.rank}`)).toEqual(hit);
        }
        expect(await unsound(org)).toEqual([]);
        expect(await retention.preview()).toMatchObject({
          jobs: 0n,
          items: 0n,
          poses: 0n,
          events: 0n,
          bytes: 0n,
          partitions: 0n,
        });
      }
    }),
    { numRuns: 25, endOnFailure: true },
  );
}, 600_000);
