import { setTimeout as delay } from 'node:timers/promises';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions, defineMigration, type MigrationClass } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import {
  RolloutRulesSchema,
  RolloutRunState,
  RolloutState,
  TenantState,
  type Rollout,
  type RolloutRun,
} from '@mad/proto/provisioner';
import type { RpcServer } from '@mad/rpc';
import { testCluster } from '@mad/testing';
import pg from 'pg';
import { databaseName } from '../src/domain/names.ts';
import { noteMigrations, serveSchemaOwner } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'rollout';
const FLEET = 20;
const [CREATE, STARS] = noteMigrations(SCHEMA) as [MigrationClass, MigrationClass];
/** Two migrations in one release; the second stands on data in some tenants. */
const shout = defineMigration('2026_01_07_1000_add_shout.ts', {
  up: `ALTER TABLE ${SCHEMA}.notes ADD COLUMN shout text NOT NULL DEFAULT ''`,
  down: `ALTER TABLE ${SCHEMA}.notes DROP COLUMN shout`,
});
const positive = defineMigration('2026_01_08_1000_positive_stars.ts', {
  up: `ALTER TABLE ${SCHEMA}.notes ADD CONSTRAINT notes_stars_check CHECK (stars >= 0)`,
  down: `ALTER TABLE ${SCHEMA}.notes DROP CONSTRAINT notes_stars_check`,
});
const OLD = [CREATE, STARS];
const NEW = [CREATE, STARS, shout, positive];

let mad: RunningProvisioner;
let owner: RpcServer;
let orgs: string[];

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA, migrations: OLD, environment: { PROVISIONER_STOCK_SIZE: '1' } });
  owner = mad.owner;
  orgs = Array.from({ length: FLEET }, () => uuidv7()).toSorted();
  for (const orgId of orgs) await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
}, 120_000);

afterAll(async () => {
  await owner?.close();
  await mad?.close();
});

async function release(migrations: readonly MigrationClass[]): Promise<void> {
  const { port } = owner;
  await owner.close();
  owner = await serveSchemaOwner(SCHEMA, [...migrations], port);
  // Longer than provisioner remembers the list of migrations.
  await delay(1_100);
}

async function inside<R extends pg.QueryResultRow>(orgId: string, sql: string): Promise<R[]> {
  const client = new pg.Client(clientOptions(testCluster().adminUrlTo(databaseName(SCHEMA, orgId))));
  await client.connect();
  try {
    return (await client.query<R>(sql)).rows;
  } finally {
    await client.end();
  }
}

const poison = (orgId: string) => inside(orgId, `INSERT INTO ${SCHEMA}.notes (body, stars) VALUES ('bad', -1)`);
const heal = (orgId: string) => inside(orgId, `UPDATE ${SCHEMA}.notes SET stars = 0 WHERE stars < 0`);

async function versionOf(orgId: string): Promise<string> {
  const [row] = await inside<{ name: string }>(
    orgId,
    `SELECT name FROM ${SCHEMA}.migrations ORDER BY "timestamp" DESC LIMIT 1`,
  );
  return row!.name;
}

const versions = async (): Promise<string[]> => [...new Set(await Promise.all(orgs.map(versionOf)))].toSorted();

async function start(rules: MessageInitShape<typeof RolloutRulesSchema> = {}): Promise<Rollout> {
  const all = create(RolloutRulesSchema, { canaries: 3, waveSize: 6, ...rules });
  const request = { schema: SCHEMA, requestId: uuidv7(), rules: all };
  return (await mad.rollouts().startRollout(request)).rollout!;
}

/** The rollout when it ends or waits for somebody. */
async function stands(rolloutId: string): Promise<Rollout> {
  let last: Rollout | undefined;
  for await (const { rollout } of mad.rollouts().watchRollout({ rolloutId })) last = rollout;
  return last!;
}

async function runsOf(rolloutId: string, state = RolloutRunState.UNSPECIFIED): Promise<RolloutRun[]> {
  const found: RolloutRun[] = [];
  for (let pageToken = ''; ;) {
    const page = await mad.rollouts().listRolloutRuns({ rolloutId, state, pageSize: 7, pageToken });
    found.push(...page.runs);
    if (page.nextPageToken === '') return found;
    pageToken = page.nextPageToken;
  }
}

/** Everything back to the old version, by hand: every test begins there. */
async function backToOld(): Promise<void> {
  for (const { rolloutId, state } of (await mad.rollouts().listRollouts({ schema: SCHEMA })).rollouts) {
    if (state === RolloutState.RUNNING || state === RolloutState.HALTED || state === RolloutState.PAUSED) {
      await mad.rollouts().abortRollout({ rolloutId });
      await stands(rolloutId);
    }
  }
  await release(NEW);
  for (const orgId of orgs) {
    await inside(
      orgId,
      `ALTER TABLE ${SCHEMA}.notes DROP COLUMN IF EXISTS shout, DROP CONSTRAINT IF EXISTS notes_stars_check;
       DELETE FROM ${SCHEMA}.notes; DELETE FROM ${SCHEMA}.migrations WHERE name IN ('${shout.migrationName}', '${positive.migrationName}')`,
    );
  }
}

describe('a plan', () => {
  test('lists each tenant with what it has and what would run, tried on its data and rolled back', async () => {
    await release(NEW);
    await poison(orgs[4]!);
    const plan = await mad.rollouts().planRollout({ schema: SCHEMA, pageSize: 200 });
    expect(plan.version).toBe(positive.migrationName);
    expect(plan.migrations.map(({ name }) => name)).toEqual([shout.migrationName, positive.migrationName]);
    expect(plan.migrations[0]!.sql).toContain('ADD COLUMN shout');
    expect(plan.tenants).toHaveLength(FLEET);
    expect(new Set(plan.tenants.map(({ fromVersion }) => fromVersion))).toEqual(new Set([STARS.migrationName]));
    expect(plan.tenants.filter(({ error }) => error !== '')).toMatchObject([
      {
        orgId: orgs[4],
        error: expect.stringContaining(`migration ${positive.migrationName} failed: check constraint`),
      },
    ]);
    expect(await versions()).toEqual([STARS.migrationName]);
    await heal(orgs[4]!);
  });

  test('tries what cannot stand in a transaction on a new database, without data, and says so', async () => {
    const index = defineMigration('2026_01_09_1000_index.ts', {
      up: `CREATE INDEX CONCURRENTLY idx_notes_stars ON ${SCHEMA}.notes (stars)`,
      down: `DROP INDEX ${SCHEMA}.idx_notes_stars`,
      transaction: false,
    });
    await release([...NEW, index]);
    const plan = await mad.rollouts().planRollout({ schema: SCHEMA, pageSize: 2 });
    expect(plan.tenants).toMatchObject([
      { error: '', triedWithoutData: [index.migrationName] },
      { error: '', triedWithoutData: [index.migrationName] },
    ]);
    const broken = defineMigration('2026_01_09_1000_index.ts', {
      up: `CREATE INDEX CONCURRENTLY idx_notes_stars ON ${SCHEMA}.no_such_table (stars)`,
      down: 'SELECT 1',
      transaction: false,
    });
    await release([...NEW, broken]);
    const bad = await mad.rollouts().planRollout({ schema: SCHEMA, pageSize: 1 });
    expect(bad.tenants).toMatchObject([{ error: expect.stringContaining('no_such_table') }]);
    await release(NEW);
  });
});

describe('a rollout', () => {
  test('brings everybody on in waves, verified; a second one finds nothing to do; stock of the old version is not given out', async () => {
    await backToOld();
    const { rolloutId } = await start();
    const done = await stands(rolloutId);
    expect(done).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { total: FLEET, succeeded: FLEET } });
    expect(await versions()).toEqual([positive.migrationName]);
    const runs = await runsOf(rolloutId);
    expect(runs).toHaveLength(FLEET);
    expect(runs.filter(({ wave }) => wave === 1)).toHaveLength(3);
    expect(new Set(runs.map(({ wave }) => wave))).toEqual(new Set([1, 2, 3, 4]));
    expect(new Set(runs.map(({ fromVersion }) => fromVersion))).toEqual(new Set([STARS.migrationName]));

    const again = await stands((await start()).rolloutId);
    expect(again).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { succeeded: FLEET } });
    expect((await runsOf(again.rolloutId)).filter(({ operationId }) => operationId !== '')).toEqual([]);

    const orgId = uuidv7();
    const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    expect(tenant!.schemaVersion).toBe(positive.migrationName);
    expect(await versionOf(orgId)).toBe(positive.migrationName);
  });

  test('that meets bad data in three of its tenants finishes the others, names the three, leaves none in between; a resume after repair finishes them', async () => {
    await backToOld();
    const bad = [orgs[5]!, orgs[11]!, orgs[17]!];
    for (const orgId of bad) await poison(orgId);
    const { rolloutId } = await start();
    const done = await stands(rolloutId);
    expect(done.counts).toMatchObject({ succeeded: FLEET + 1 - 3, failed: 3, pending: 0, running: 0 });
    expect(done.state).toBe(RolloutState.SUCCEEDED);
    const failed = await runsOf(rolloutId, RolloutRunState.FAILED);
    expect(failed.map(({ orgId }) => orgId)).toEqual(bad);
    for (const { error } of failed) expect(error).toContain(`migration ${positive.migrationName} failed`);
    // The first migration of the release went well there, and was taken back.
    for (const orgId of bad) expect(await versionOf(orgId)).toBe(STARS.migrationName);

    const before = (await mad.operations().listOperations({ kind: 'migrate', pageSize: 1000 })).operations.length;
    for (const orgId of bad) await heal(orgId);
    await mad.rollouts().resumeRollout({ rolloutId });
    expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { failed: 0 } });
    const after = (await mad.operations().listOperations({ kind: 'migrate', pageSize: 1000 })).operations.length;
    expect(after - before).toBe(3);
    expect(await versions()).toEqual([positive.migrationName]);
  });

  test('halts in the canary wave when a canary fails, and touches nobody else', async () => {
    await backToOld();
    await poison(orgs[1]!);
    const { rolloutId } = await start();
    const halted = await stands(rolloutId);
    expect(halted).toMatchObject({ state: RolloutState.HALTED, wave: 1, reason: '1 of 3 failed among the canaries' });
    expect((await runsOf(rolloutId, RolloutRunState.PENDING)).every(({ wave }) => wave > 1)).toBe(true);
    for (const orgId of orgs.slice(3)) expect(await versionOf(orgId)).toBe(STARS.migrationName);
    // Another cannot begin beside it.
    await expect(start()).rejects.toMatchObject({ code: Code.FailedPrecondition });
    await heal(orgs[1]!);
    await mad.rollouts().resumeRollout({ rolloutId });
    expect((await stands(rolloutId)).state).toBe(RolloutState.SUCCEEDED);
  });

  test('begins with the tenants labelled staging, waits for a verification, and halts when that fails', async () => {
    await backToOld();
    const token = await mad.platform('platform.tenants.label');
    const staging = orgs[9]!;
    const label = { orgId: staging, schema: SCHEMA };
    await mad.tenantsAs(token).labelTenant({ ...label, labels: { staging: '' } });
    const { rolloutId } = await start({ verification: true });
    expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.WAITING, wave: 0 });
    expect(await versionOf(staging)).toBe(positive.migrationName);
    expect(await versionOf(orgs[0]!)).toBe(STARS.migrationName);
    await mad.rollouts().reportVerification({ rolloutId, passed: false, report: '2 of 40 checks failed' });
    expect(await stands(rolloutId)).toMatchObject({
      state: RolloutState.HALTED,
      reason: 'the verification failed: 2 of 40 checks failed',
    });
    await mad.rollouts().resumeRollout({ rolloutId });
    expect((await stands(rolloutId)).state).toBe(RolloutState.WAITING);
    await mad.rollouts().reportVerification({ rolloutId, passed: true });
    expect((await stands(rolloutId)).state).toBe(RolloutState.SUCCEEDED);
    await mad.tenantsAs(token).labelTenant({ ...label, remove: ['staging'] });
  });

  test('does not begin while a database is not what its version makes, and names the object', async () => {
    await backToOld();
    await inside(orgs[13]!, `DROP FUNCTION ${SCHEMA}.star_count()`);
    const { rolloutId } = await start();
    const halted = await stands(rolloutId);
    expect(halted.state).toBe(RolloutState.HALTED);
    expect(halted.reason).toContain('1 database is not what its version makes');
    expect(halted.reason).toContain(`${databaseName(SCHEMA, orgs[13]!)}: function star_count() is missing`);
    expect(await versions()).toEqual([STARS.migrationName]);
    const key = { orgId: orgs[13]!, schema: SCHEMA };
    const { planDigest } = await mad.drift().planRepair(key);
    await mad.drift().repairTenant({ ...key, planDigest });
    while ((await mad.drift().listDrift({ orgId: orgs[13]! })).tenants[0]!.differences.length > 0) await delay(50);
    await mad.rollouts().resumeRollout({ rolloutId });
    expect((await stands(rolloutId)).state).toBe(RolloutState.SUCCEEDED);
  });

  test('gives up on a tenant whose table somebody holds all the time, finishes the others, and finishes it when asked again', async () => {
    await backToOld();
    const held = orgs[15]!;
    const holder = new pg.Client(clientOptions(testCluster().adminUrlTo(databaseName(SCHEMA, held))));
    await holder.connect();
    await holder.query(`BEGIN; LOCK TABLE ${SCHEMA}.notes IN ACCESS SHARE MODE`);
    const { rolloutId } = await start({ attempts: 2 });
    const done = await stands(rolloutId);
    expect(done).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { failed: 1 } });
    expect(await runsOf(rolloutId, RolloutRunState.FAILED)).toMatchObject([
      { orgId: held, attempts: 2, error: expect.stringContaining('lock timeout') },
    ]);
    await holder.end();
    await mad.rollouts().resumeRollout({ rolloutId });
    expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { failed: 0 } });
    expect(await versionOf(held)).toBe(positive.migrationName);
  }, 120_000);

  test('can be paused, goes on with what is left, and can be given up', async () => {
    await backToOld();
    const { rolloutId } = await start({ canaries: 1, waveSize: 1, concurrency: 1 });
    while ((await mad.rollouts().getRollout({ rolloutId })).rollout!.counts!.succeeded < 4) await delay(10);
    await mad.rollouts().pauseRollout({ rolloutId });
    const paused = await stands(rolloutId);
    expect(paused).toMatchObject({ state: RolloutState.PAUSED, counts: { running: 0 } });
    expect(paused.counts!.pending).toBeGreaterThan(0);
    await delay(700);
    expect((await stands(rolloutId)).counts).toEqual(paused.counts);
    await mad.rollouts().resumeRollout({ rolloutId });
    while ((await mad.rollouts().getRollout({ rolloutId })).rollout!.counts!.succeeded <= paused.counts!.succeeded)
      await delay(10);
    await mad.rollouts().abortRollout({ rolloutId });
    const aborted = await stands(rolloutId);
    expect(aborted).toMatchObject({ state: RolloutState.ABORTED, counts: { pending: 0, running: 0 } });
    expect(aborted.counts!.skipped + aborted.counts!.succeeded).toBe(aborted.counts!.total);
    await expect(mad.rollouts().resumeRollout({ rolloutId })).rejects.toMatchObject({ code: Code.FailedPrecondition });

    // What it did is taken back, and nothing else is touched.
    await mad.rollouts().rollBackRollout({ rolloutId });
    const back = await stands(rolloutId);
    expect(back.state).toBe(RolloutState.ROLLED_BACK);
    // The organization made after the release is at the new version from the beginning, and stays there.
    expect(back.counts!.rolledBack).toBeGreaterThan(0);
    expect(await versions()).toEqual([STARS.migrationName]);
    const { tenants } = await mad.drift().listDrift({ pageSize: 200, schema: SCHEMA });
    expect(tenants.flatMap(({ differences }) => differences)).toEqual([]);
  });

  test("halts when the schema's owner goes away, instead of passing everybody by, and goes on when it is back", async () => {
    await backToOld();
    const { rolloutId } = await start({ canaries: 1, waveSize: 1, concurrency: 1, attempts: 1, maxFailures: 1 });
    const { port } = owner;
    await owner.close();
    const halted = await stands(rolloutId);
    expect(halted.state).toBe(RolloutState.HALTED);
    expect(halted.reason).toMatch(/could be reached/);
    owner = await serveSchemaOwner(SCHEMA, NEW, port);
    await mad.rollouts().resumeRollout({ rolloutId });
    expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { failed: 0, queued: 0 } });
    expect(await versions()).toEqual([positive.migrationName]);
  }, 180_000);

  test('forgets nobody: a suspended tenant is migrated like the others, one out of reach when it is back', async () => {
    await backToOld();
    const [suspended, away] = [orgs[2]!, orgs[6]!];
    // What was done by hand is in no row.
    await mad.rows.query('UPDATE provisioner.tenants SET schema_version = $1', [positive.migrationName]);
    await mad.tenants().suspendTenants({ orgId: suspended });
    const name = databaseName(SCHEMA, away);
    await mad.admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    const { rolloutId } = await start();
    const done = await stands(rolloutId);
    // One is left in the queue; now and then it is tried, which fails at once.
    const { total } = done.counts!;
    expect(done).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { succeeded: total - 1, failed: 0 } });
    const unfinished = (await runsOf(rolloutId)).filter(({ state }) => state !== RolloutRunState.SUCCEEDED);
    expect(unfinished).toMatchObject([{ orgId: away }]);
    const { tenants } = await mad.tenants().resumeTenants({ orgId: suspended });
    expect(tenants).toMatchObject([{ state: TenantState.READY, schemaVersion: positive.migrationName }]);
    await mad.admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
    for (let wait = 0; (await versionOf(away)) !== positive.migrationName; wait += 1) {
      if (wait > 1_200) throw new Error('it was forgotten');
      await delay(50);
    }

    // Nobody had looked at it when it was begun, and its row told of a version its database did not have.
    const ended = async (): Promise<RolloutRun | undefined> =>
      (await runsOf(rolloutId, RolloutRunState.SUCCEEDED)).find(({ orgId }) => orgId === away);
    let run = await ended();
    for (let wait = 0; run === undefined; wait += 1) {
      if (wait > 1_200) throw new Error('its end was not noted');
      await delay(50);
      run = await ended();
    }
    expect(run.fromVersion).toBe(OLD.at(-1)!.migrationName);
    await mad.rollouts().rollBackRollout({ rolloutId });
    expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.ROLLED_BACK });
    expect(await versions()).toEqual([OLD.at(-1)!.migrationName]);
  }, 120_000);
});
