import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { serviceTokenInterceptor } from '@mad/auth';
import { createLogger } from '@mad/process';
import { TenantState } from '@mad/proto/provisioner';
import { grpcTransport, type GrpcTransport } from '@mad/rpc';
import { openTenants, type Tenants } from '@mad/tenancy';
import { serviceToken } from '@mad/testing';
import { resultsEntities, SCHEMA } from '../src/db/schema.ts';
import { RetentionKeeper } from '../src/retention-keeper.ts';
import { beginRun } from '../src/runs/retention.ts';
import { finished, retentionOf } from './support/retention.ts';
import { openWorld, rows, type Organization, type World } from './support/world.ts';

let world: World;
let routes: GrpcTransport;
let tenants: Tenants;
let keepers: RetentionKeeper[] = [];
const logger = createLogger('results', { level: 'error' });
/** A period of 1.8 s. */
const EVERY_HOURS = 1 / 2000;

beforeAll(async () => {
  world = await openWorld();
  routes = grpcTransport(world.neighbours, { interceptors: [serviceTokenInterceptor(() => serviceToken('results'))] });
  tenants = await openTenants({ schema: SCHEMA, entities: resultsEntities, routes, node: 'keeper', logger });
});

afterEach(async () => {
  await Promise.all(keepers.map((keeper) => keeper.close()));
  keepers = [];
});

afterAll(async () => {
  await tenants.close();
  routes.close();
  await world.close();
});

function keep(graceHours: number): void {
  const options = {
    tenants,
    schema: SCHEMA,
    routes,
    everyHours: EVERY_HOURS,
    graceHours,
    sliceRows: 1000,
    roundMs: 50,
    logger,
  };
  keepers.push(new RetentionKeeper(options));
}

const items = async (org: Organization) =>
  (await rows<{ n: number }>(org, 'SELECT count(*)::int AS n FROM task_results'))[0]!.n;

async function eventually(what: () => Promise<boolean>): Promise<void> {
  for (let wait = 0; wait < 1000; wait += 1) {
    if (await what()) return;
    await delay(30);
  }
  throw new Error('never');
}

test('the clock applies each policy whose grace is over, in one run, and leaves the others alone', async () => {
  const [due, without, fresh, suspended] = (await Promise.all([1, 2, 3, 4].map(() => world.organization()))) as [
    Organization,
    Organization,
    Organization,
    Organization,
  ];
  for (const org of [due, without, fresh, suspended]) await finished(world, org, { smiles: ['C'], endedDaysAgo: 40 });
  for (const org of [due, fresh, suspended]) await retentionOf(world, org).set([{ keepDays: 30 }]);
  for (const org of [due, suspended])
    await rows(org, `UPDATE retention_policies SET set_at = now() - interval '25 hours'`);
  world.around.routes.set(suspended.orgId, {
    ...world.around.routes.get(suspended.orgId)!,
    state: TenantState.SUSPENDED,
  });
  keep(24);
  keep(24);
  await eventually(async () => (await items(due)) === 0);
  await eventually(async () => (await retentionOf(world, due).runs()).runs[0]?.endTime !== undefined);
  // A second look finds nothing, and leaves no record of it but while it looks.
  await delay(2500);
  const { runs } = await retentionOf(world, due).runs();
  const ended = runs.filter(({ endTime }) => endTime !== undefined);
  expect(ended).toMatchObject([{ startedBy: '', deleted: { items: 1n } }]);
  expect([await items(without), await items(fresh), await items(suspended)]).toEqual([1, 1, 1]);
});

test('a run that was cut is ended by the clock, also where the policy in force keeps everything now', async () => {
  const org = await world.organization();
  const retention = retentionOf(world, org);
  await finished(world, org, { smiles: ['C', 'CC'], endedDaysAgo: 40 });
  await retention.set([{ keepDays: 30, keepTopHits: 1 }]);
  await tenants.transact(org.orgId, (tx) => beginRun(tx, '01a21465-2cde-7569-a08e-87ac2a281dd4', 'somebody'));
  await retention.set([]);
  keep(24);
  await eventually(async () => (await retention.runs()).runs[0]?.endTime !== undefined);
  expect((await retention.runs()).runs).toMatchObject([
    { startedBy: 'somebody', policyVersion: 1, deleted: { items: 1n } },
  ]);
  expect(await items(org)).toBe(1);
});
