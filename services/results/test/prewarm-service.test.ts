import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { PrewarmService } from '@mad/proto/results';
import { bearer } from '@mad/testing';
import { onServer } from './support/tenant-database.ts';
import { openWorld, type Organization, type World } from './support/world.ts';
import { failureOf } from './support/errors.ts';

let world: World;

beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world?.close());

const as = (name: string) => world.as(name, PrewarmService);

/** Connections to an organization's database. */
const backends = ({ database }: Organization) =>
  onServer(database.adminUrl, async (client) => {
    const sql = 'SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = $1 AND usename = $2';
    const { rows } = await client.query<{ n: number }>(sql, [database.name, database.user]);
    return rows[0]!.n;
  });

test('one connection is open before the first read, and the read opens no other', async () => {
  const org = await world.organization();
  const { jobId } = await world.materialize(org);
  await world.restart();
  expect(await backends(org)).toBe(0);
  expect(await as('identity').prewarmTenant({ orgId: org.orgId })).toMatchObject({ open: true });
  expect(await backends(org)).toBe(1);
  await world.jobRuns.getJobRun({ orgId: org.orgId, jobId }, bearer(org.token));
  expect(await backends(org)).toBe(1);
});

test('an organization without a database is left without one', async () => {
  expect(await as('identity').prewarmTenant({ orgId: uuidv7() })).toMatchObject({ open: false });
});

test('nobody but identity may ask, and it must name an organization', async () => {
  expect((await failureOf(as('worker').prewarmTenant({ orgId: uuidv7() })))?.code).toBe('permission_denied');
  expect((await failureOf(as('identity').prewarmTenant({ orgId: 'acme' })))?.code).toBe('invalid_argument');
});
