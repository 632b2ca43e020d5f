import { setTimeout as delay } from 'node:timers/promises';
import { createClient } from '@connectrpc/connect';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { RouteService, TenantService, type Route } from '@mad/proto/provisioner';
import { platformToken, served, ServiceProcess, serviceToken, START_MS, testCluster } from '@mad/testing';
import pg from 'pg';
import { PLANS, type StepName } from '../src/domain/plan.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'rotkill';
const KILLS = 3;
const MAX_ROUNDS = 60;

let mad: RunningProvisioner;
let provisioner: ServiceProcess;

// Each attempt at the test has its own: what a failed one left is not counted.
beforeEach(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    idle: true,
    environment: { PROVISIONER_STEP_LEASE_MS: '500', PROVISIONER_SWEEP_MS: '100' },
  });
  provisioner = await ServiceProcess.of('provisioner', mad.environment);
});

afterEach(async () => {
  await provisioner?.close();
  await mad?.close();
});

async function logsIn({ user, password, database }: Route): Promise<boolean> {
  const client = new pg.Client({ ...clientOptions(testCluster().adminUrl), user, password, database });
  await client.connect();
  const { rows } = await client.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${SCHEMA}.notes`);
  await client.end();
  return rows.length === 1;
}

/** Kills the process in the step, or after its work and before it is noted as done. Undefined when it was too fast. */
async function killAt(orgId: string, operations: number, step: StepName): Promise<StepName | undefined> {
  for (const until = performance.now() + START_MS; ;) {
    if (performance.now() >= until) throw new Error(`${step} was never reached`);
    const { rows } = await mad.rows.query<{ step: string | null; done: number }>(
      `SELECT step, (SELECT count(*)::int FROM provisioner.operations o
         WHERE o.org_id = t.org_id AND kind = 'rotate' AND state = 'succeeded') AS done
       FROM provisioner.tenants t WHERE org_id = $1`,
      [orgId],
    );
    if (rows[0]!.done > operations) return undefined;
    if (rows[0]!.step === step) break;
  }
  await mad.rows.query('BEGIN');
  const { rows } = await mad.rows.query<{ step: StepName | null }>(
    'SELECT step FROM provisioner.tenants WHERE org_id = $1 FOR UPDATE',
    [orgId],
  );
  await delay(Math.random() * 25);
  await provisioner.kill();
  await mad.rows.query('ROLLBACK');
  return rows[0]!.step ?? undefined;
}

test('kill -9 in every step of a rotation: the tenant always has a login that works, and the rotation is finished', async () => {
  provisioner.start();
  const orgId = uuidv7();
  const tenants = createClient(
    TenantService,
    provisioner.as(() => serviceToken('identity')),
  );
  const routes = createClient(
    RouteService,
    provisioner.as(() => serviceToken('results')),
  );
  const platform = createClient(
    TenantService,
    provisioner.as(() => platformToken({ permissions: ['platform.tenants.rotate'] })),
  );
  await served(() => tenants.ensureTenant({ orgId, schema: SCHEMA }));
  const routeNow = async (): Promise<Route> => (await served(() => routes.getRoute({ orgId, schema: SCHEMA }))).route!;
  const { steps } = PLANS.rotate;
  const diedAt = new Map<string, number>();
  let rotations = 0;
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const wanted = steps.find((step) => (diedAt.get(step) ?? 0) < KILLS);
    if (wanted === undefined) break;
    const before = await routeNow();
    const requestId = uuidv7();
    const request = { orgId, schema: SCHEMA, requestId };
    const first = platform.rotateTenantCredentials(request).catch(() => undefined);
    const step = await killAt(orgId, rotations, wanted);
    await first;
    if (step !== undefined) {
      diedAt.set(step, (diedAt.get(step) ?? 0) + 1);
      // With nobody there to repair anything.
      expect(await logsIn(before)).toBe(true);
    }
    // It may have died between two rotations.
    provisioner.start();
    // Whether it goes on by itself or because somebody repeats the request.
    const { login } = await served(() => platform.rotateTenantCredentials(request));
    rotations += 1;
    const after = await routeNow();
    expect(after).toMatchObject({ user: login, generation: before.generation });
    expect(after.user).not.toBe(before.user);
    expect(await logsIn(after)).toBe(true);
    expect(await logsIn(before)).toBe(true);
  }
  expect(steps.filter((step) => (diedAt.get(step) ?? 0) < KILLS)).toEqual([]);

  // Each was one operation, and the routers were told of each at least once, without a new generation.
  const { rows } = await mad.rows.query(
    `SELECT (SELECT count(*)::int FROM provisioner.operations WHERE kind = 'rotate' AND state = 'succeeded') AS operations,
       (SELECT count(*)::int FROM provisioner.operations WHERE kind = 'rotate' AND state <> 'succeeded') AS others,
       (SELECT count(*)::int FROM provisioner.tenant_changes WHERE org_id = $1) AS changes,
       (SELECT max(generation)::int FROM provisioner.tenant_changes WHERE org_id = $1) AS generation`,
    [orgId],
  );
  expect(rows).toEqual([{ operations: rotations, others: 0, changes: rotations + 1, generation: 2 }]);
}, 300_000);
