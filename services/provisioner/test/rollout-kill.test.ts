import { setTimeout as delay } from 'node:timers/promises';
import { createClient } from '@connectrpc/connect';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { clientOptions, defineMigration } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { DriftService, RolloutService, RolloutState, TenantService } from '@mad/proto/provisioner';
import { platformToken, served, ServiceProcess, serviceToken, START_MS, testCluster } from '@mad/testing';
import pg from 'pg';
import { databaseName } from '../src/domain/names.ts';
import { noteMigrations, serveSchemaOwner } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'rollkill';
const FLEET = 10;
const KILLS = 8;

/** Slow enough to be killed in. */
const slow = (minute: string, name: string) =>
  defineMigration(`2026_01_07_10${minute}_${name}.ts`, {
    up: `ALTER TABLE ${SCHEMA}.notes ADD COLUMN ${name} integer NOT NULL DEFAULT 0; SELECT pg_sleep(0.05)`,
    down: `ALTER TABLE ${SCHEMA}.notes DROP COLUMN ${name}; SELECT pg_sleep(0.05)`,
  });
const OLD = noteMigrations(SCHEMA);
const NEW = [...OLD, slow('00', 'loud'), slow('01', 'late')];

let mad: RunningProvisioner;
let provisioner: ServiceProcess;

beforeEach(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: OLD,
    idle: true,
    environment: { PROVISIONER_STEP_LEASE_MS: '500', PROVISIONER_SWEEP_MS: '100' },
  });
  provisioner = await ServiceProcess.of('provisioner', mad.environment);
});

afterEach(async () => {
  await provisioner?.close();
  await mad?.close();
});

/** How many tenants stand where, by the version their database has. */
async function versions(orgs: readonly string[]): Promise<string[]> {
  return Promise.all(
    orgs.map(async (orgId) => {
      const client = new pg.Client(clientOptions(testCluster().adminUrlTo(databaseName(SCHEMA, orgId))));
      await client.connect();
      const { rows } = await client.query<{ name: string }>(
        `SELECT name FROM ${SCHEMA}.migrations ORDER BY "timestamp" DESC LIMIT 1`,
      );
      await client.end();
      return rows[0]!.name;
    }),
  );
}

/** Kills the process again and again while the rollout goes on, each time a little further. */
async function killUntil(done: () => Promise<number>, total: number): Promise<number> {
  let kills = 0;
  for (let kill = 0; kill < KILLS; kill += 1) {
    const goal = Math.floor((kill * total) / KILLS);
    for (const until = performance.now() + START_MS; (await done()) < goal; await delay(5)) {
      if (performance.now() >= until) throw new Error(`the rollout stands at less than ${goal}`);
    }
    await delay(Math.random() * 120);
    if ((await done()) >= total) break;
    await provisioner.kill();
    kills += 1;
    provisioner.start();
  }
  return kills;
}

test('kill -9 at any moment of a rollout, up and back: every tenant is migrated once, none is left between versions', async () => {
  provisioner.start();
  const tenants = createClient(
    TenantService,
    provisioner.as(() => serviceToken('identity')),
  );
  const permissions = ['read', 'start', 'control'].map((verb) => `platform.rollouts.${verb}`);
  const transport = provisioner.as(() => platformToken({ permissions: [...permissions, 'platform.drift.read'] }));
  const rollouts = createClient(RolloutService, transport);
  const orgs = Array.from({ length: FLEET }, () => uuidv7());
  for (const orgId of orgs) await served(() => tenants.ensureTenant({ orgId, schema: SCHEMA }));
  const { port } = mad.owner;
  await mad.owner.close();
  const owner = await serveSchemaOwner(SCHEMA, NEW, port);
  try {
    await delay(1_100);
    const requestId = uuidv7();
    const { rollout } = await served(() => rollouts.startRollout({ schema: SCHEMA, requestId }));
    const { rolloutId } = rollout!;
    const counted = (state: string) => async (): Promise<number> => {
      const { rows } = await mad.rows.query<{ n: number }>(
        'SELECT count(*)::int AS n FROM provisioner.migration_runs WHERE rollout_id = $1 AND state = $2',
        [rolloutId, state],
      );
      return rows[0]!.n;
    };
    const ended = async (): Promise<RolloutState> => {
      for (const until = performance.now() + START_MS; ; await delay(50)) {
        const { rollout: now } = await served(() => rollouts.getRollout({ rolloutId }));
        if (now!.state !== RolloutState.RUNNING) return now!.state;
        if (performance.now() >= until) throw new Error('the rollout does not end');
      }
    };
    expect(await killUntil(counted('succeeded'), FLEET)).toBeGreaterThan(2);
    expect(await ended()).toBe(RolloutState.SUCCEEDED);
    expect(new Set(await versions(orgs))).toEqual(new Set([NEW.at(-1)!.migrationName]));
    // A repeat of the request is the same rollout.
    expect((await served(() => rollouts.startRollout({ schema: SCHEMA, requestId }))).rollout!.rolloutId).toBe(
      rolloutId,
    );

    await served(() => rollouts.rollBackRollout({ rolloutId }));
    expect(await killUntil(counted('rolled_back'), FLEET)).toBeGreaterThan(2);
    expect(await ended()).toBe(RolloutState.ROLLED_BACK);
    expect(new Set(await versions(orgs))).toEqual(new Set([OLD.at(-1)!.migrationName]));

    const swept = await served(() => createClient(DriftService, transport).listDrift({}));
    expect(swept.tenants.map(({ differences, error }) => [differences.length, error])).toEqual(orgs.map(() => [0, '']));
    const { rows } = await mad.rows.query(
      `SELECT count(*) FILTER (WHERE state = 'running')::int AS running, count(*) FILTER (WHERE state = 'failed')::int AS failed,
         count(*) FILTER (WHERE state = 'succeeded')::int AS succeeded
       FROM provisioner.operations WHERE kind = 'migrate'`,
    );
    expect(rows).toEqual([{ running: 0, failed: 0, succeeded: 2 * FLEET }]);
    expect((await mad.objects()).databases).toHaveLength(FLEET);
  } finally {
    await owner.close();
  }
}, 300_000);
