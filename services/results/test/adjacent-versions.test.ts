import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { JobState } from '@mad/proto/catalog';
import { resultsMigrations } from '../src/index.ts';
import { SERVED_FROM } from '../src/db/schema.ts';
import { failureOf } from './support/errors.ts';
import { finished, retentionOf } from './support/retention.ts';
import { bearer, openWorld, rows, type World } from './support/world.ts';

// While a rollout goes through the fleet, one results serves tenants at the version before its own and at its own.

const from = resultsMigrations.indexOf(SERVED_FROM);

let world: World;

beforeAll(async () => {
  world = await openWorld();
});

afterAll(() => world.close());

test('jobs run from their beginning to their end, cache included, in tenants at both versions at once', async () => {
  const before = await world.organization(resultsMigrations.slice(0, from + 1));
  const after = await world.organization();
  await Promise.all(
    [before, after].map(async (org) => {
      const smiles = ['C', 'CC', 'CCC', 'CCCC', 'CCCCC'];
      const made = await world.materialize(org, { smiles });
      for (const { taskExecutionId } of made.runnable) await world.run(org, taskExecutionId, () => ({ score: 0.5 }));
      const again = await world.materialize(org, { smiles });
      expect(again.progress).toMatchObject({ state: JobState.COMPLETED, counters: { requested: 5n, cached: 5n } });
    }),
  );
});

test('what retention dropped from a tenant that is not migrated yet is read; dropping more waits', async () => {
  const before = await world.organization(resultsMigrations.slice(0, from + 1));
  const { jobId } = await finished(world, before, { smiles: ['C', 'CC'], endedDaysAgo: 40 });
  const retention = retentionOf(world, before);
  await retention.set([{ keepDays: 30 }]);
  expect(await retention.preview()).toMatchObject({ jobs: 1n, items: 2n });
  expect(await failureOf(retention.apply())).toMatchObject({ reason: 'SCHEMA_OUTDATED' });
  await rows(before, 'UPDATE jobs SET results_dropped_at = now(), results_top = 2');
  const query = { orgId: before.orgId, jobId };
  const { hits, resultsDropTime } = await world.jobRuns.listHits(query, bearer(before.token));
  expect([hits.length, resultsDropTime !== undefined]).toEqual([2, true]);
});

test('a tenant of an older version is refused, and its version named', async () => {
  expect(from).toBeGreaterThan(0);
  const org = await world.organization(resultsMigrations.slice(0, from));
  expect(await failureOf(world.materialize(org))).toMatchObject({
    code: 'failed_precondition',
    reason: 'SCHEMA_OUTDATED',
  });
  await expect(world.materialize(org)).rejects.toThrow(resultsMigrations[from - 1]!.migrationName);
});
