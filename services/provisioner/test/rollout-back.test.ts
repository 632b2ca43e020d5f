import { setTimeout as delay } from 'node:timers/promises';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { Code, createClient } from '@connectrpc/connect';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { defineMigration, type MigrationClass } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import {
  RolloutRulesSchema,
  RolloutRunState,
  RolloutService,
  RolloutState,
  type Rollout,
  type RolloutRun,
} from '@mad/proto/provisioner';
import { errorMetadataOf, type RpcServer } from '@mad/rpc';
import { platformToken } from '@mad/testing';
import type pg from 'pg';
import { databaseName } from '../src/domain/names.ts';
import { noteMigrations, serveSchemaOwner } from './neighbours.ts';
import { failure, inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SLOW = 120_000;
const SCHEMA = 'wayback';
const ADMIN = uuidv7();
const OLD = noteMigrations(SCHEMA) as [MigrationClass, MigrationClass];
const SOON = `SET LOCAL lock_timeout = '200ms'`;
/** Goes up beside whoever reads the notes, and not down. */
const first = defineMigration('2026_01_07_1000_add_shouts.ts', {
  up: `CREATE TABLE ${SCHEMA}.shouts (shout text)`,
  down: `${SOON}; LOCK TABLE ${SCHEMA}.notes; DROP TABLE ${SCHEMA}.shouts`,
});
const second = defineMigration('2026_01_08_1000_positive_stars.ts', {
  up: `${SOON}; ALTER TABLE ${SCHEMA}.notes ADD CONSTRAINT notes_stars_check CHECK (stars >= 0)`,
  down: `ALTER TABLE ${SCHEMA}.notes DROP CONSTRAINT notes_stars_check`,
});
const [, { migrationName: before }] = OLD;

let mad: RunningProvisioner;
let owner: RpcServer;
let orgs: [string, string, string];

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA, migrations: OLD });
  owner = mad.owner;
  orgs = [uuidv7(), uuidv7(), uuidv7()].toSorted() as typeof orgs;
  for (const orgId of orgs) await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  const { port } = owner;
  await owner.close();
  owner = await serveSchemaOwner(SCHEMA, [...OLD, first, second], port);
  await delay(1_100);
}, SLOW);

afterAll(async () => {
  await owner?.close();
  await mad?.close();
});

/** Every test begins with three databases of the version before, and no rollout under way. */
beforeEach(async () => {
  for (const orgId of orgs) {
    expect(await versionOf(orgId)).toBe(before);
    await rowsIn(orgId, `DELETE FROM ${SCHEMA}.notes`);
  }
}, SLOW);

function rowsIn<R extends pg.QueryResultRow>(orgId: string, sql: string): Promise<R[]> {
  return inside(databaseName(SCHEMA, orgId), async (client) => (await client.query<R>(sql)).rows);
}

async function versionOf(orgId: string): Promise<string> {
  const rows = await rowsIn<{ name: string }>(
    orgId,
    `SELECT name FROM ${SCHEMA}.migrations ORDER BY "timestamp" DESC LIMIT 1`,
  );
  return rows[0]!.name;
}

/** The platform's administrator's. */
const rollouts = () =>
  createClient(
    RolloutService,
    mad.as(() =>
      platformToken({
        userId: ADMIN,
        permissions: ['read', 'start', 'control'].map((verb) => `platform.rollouts.${verb}`),
      }),
    ),
  );

async function start(
  rules: MessageInitShape<typeof RolloutRulesSchema> = {},
  requestId = uuidv7(),
): Promise<{ rolloutId: string }> {
  const all = create(RolloutRulesSchema, rules);
  return (await rollouts().startRollout({ schema: SCHEMA, requestId, rules: all })).rollout!;
}

/** The rollout when it ends or waits for somebody. */
async function stands(rolloutId: string): Promise<Rollout> {
  let last: Rollout | undefined;
  for await (const { rollout } of rollouts().watchRollout({ rolloutId })) last = rollout;
  return last!;
}

async function runOf(rolloutId: string, orgId: string): Promise<RolloutRun> {
  const { runs } = await rollouts().listRolloutRuns({ rolloutId });
  return runs.find((run) => run.orgId === orgId)!;
}

/** The run when the condition holds; one that waits in line is not made to wait longer. */
async function runWhen(rolloutId: string, orgId: string, condition: (run: RolloutRun) => boolean): Promise<RolloutRun> {
  for (const over = performance.now() + SLOW / 2; ; await delay(50)) {
    const run = await runOf(rolloutId, orgId);
    if (condition(run)) return run;
    if (performance.now() > over) throw new Error(`waited in vain: ${RolloutRunState[run.state]} ${run.error}`);
    await mad.rows.query(
      `UPDATE provisioner.migration_runs SET not_before = now() WHERE rollout_id = $1 AND state = 'queued'`,
      [rolloutId],
    );
  }
}

/** Reads the notes of an organization for as long as the callback runs. */
async function whileRead<T>(orgId: string, fn: () => Promise<T>): Promise<T> {
  return inside(databaseName(SCHEMA, orgId), async (holder) => {
    await holder.query(`BEGIN; LOCK TABLE ${SCHEMA}.notes IN ACCESS SHARE MODE`);
    const answer = await fn();
    await holder.query('COMMIT');
    return answer;
  });
}

/** A rollout that halts by bad data of the second canary while the first stands between two versions. */
async function haltedBetween(): Promise<string> {
  const [held, bad] = orgs;
  await rowsIn(bad, `INSERT INTO ${SCHEMA}.notes (body, stars) VALUES ('bad', -1)`);
  const rolloutId = await whileRead(held, async () => {
    const { rolloutId: id } = await start({ canaries: 2, concurrency: 2 });
    expect(await stands(id)).toMatchObject({ state: RolloutState.HALTED, reason: '1 of 2 failed among the canaries' });
    return id;
  });
  const run = await runOf(rolloutId, held);
  expect(run).toMatchObject({ state: RolloutRunState.PENDING, fromVersion: before });
  expect(run.error).toMatch(/lock timeout; and the way back failed: .*lock timeout/);
  expect(await versionOf(held)).toBe(first.migrationName);
  return rolloutId;
}

describe('the way back of a rollout', () => {
  test(
    'takes back whom it left between two versions, and nobody else is touched',
    async () => {
      const rolloutId = await haltedBetween();
      await rollouts().rollBackRollout({ rolloutId });
      expect(await stands(rolloutId)).toMatchObject({
        state: RolloutState.ROLLED_BACK,
        counts: { total: 3, rolledBack: 2, skipped: 1 },
      });
      expect(await Promise.all(orgs.map(versionOf))).toEqual([before, before, before]);
    },
    SLOW,
  );

  test(
    'does so after it was given up as well: then they have failed, and say so',
    async () => {
      const rolloutId = await haltedBetween();
      const { rollout } = await rollouts().abortRollout({ rolloutId });
      expect(rollout).toMatchObject({ state: RolloutState.ABORTED, counts: { failed: 2, skipped: 1 } });
      expect(await runOf(rolloutId, orgs[0])).toMatchObject({
        state: RolloutRunState.FAILED,
        error: expect.stringContaining('the way back failed'),
      });
      await rollouts().rollBackRollout({ rolloutId });
      expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.ROLLED_BACK, counts: { rolledBack: 2 } });
      expect(await Promise.all(orgs.map(versionOf))).toEqual([before, before, before]);
    },
    SLOW,
  );

  test(
    'goes to where each came from, after a resumption that found it between two versions too',
    async () => {
      const rolloutId = await haltedBetween();
      await rowsIn(orgs[1], `DELETE FROM ${SCHEMA}.notes`);
      await rollouts().resumeRollout({ rolloutId });
      expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { succeeded: 3 } });
      await rollouts().rollBackRollout({ rolloutId });
      expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.ROLLED_BACK, counts: { rolledBack: 3 } });
      expect(await Promise.all(orgs.map(versionOf))).toEqual([before, before, before]);
    },
    SLOW,
  );

  test(
    'leaves alone whom nobody could look at, and never takes anybody to the newest version',
    async () => {
      const [away] = orgs;
      const name = databaseName(SCHEMA, away);
      await mad.admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
      const { rolloutId } = await start();
      expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { succeeded: 2 } });
      await mad.admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
      await rowsIn(away, `ALTER FUNCTION ${SCHEMA}.star_count() RENAME TO star_sum`);
      const failed = await runWhen(rolloutId, away, ({ state }) => state === RolloutRunState.FAILED);
      expect(failed).toMatchObject({ fromVersion: '', error: expect.stringContaining('not what its version makes') });

      await rollouts().rollBackRollout({ rolloutId });
      expect(await stands(rolloutId)).toMatchObject({
        state: RolloutState.ROLLED_BACK,
        counts: { rolledBack: 2, skipped: 1, failed: 0 },
      });
      expect(await Promise.all(orgs.map(versionOf))).toEqual([before, before, before]);
      await rowsIn(away, `ALTER FUNCTION ${SCHEMA}.star_sum() RENAME TO star_count`);

      // As a release before this one left it.
      await mad.rows.query(
        `UPDATE provisioner.migration_runs SET state = 'failed' WHERE rollout_id = $1 AND from_version = ''`,
        [rolloutId],
      );
      await mad.rows.query(
        `UPDATE provisioner.migration_rollouts SET state = 'halted', ended_at = NULL WHERE rollout_id = $1`,
        [rolloutId],
      );
      await rollouts().resumeRollout({ rolloutId });
      expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.ROLLED_BACK, counts: { skipped: 1 } });
      expect(await versionOf(away)).toBe(before);
    },
    SLOW,
  );
});

test(
  'a tenant that was out of reach and whose table is held when it is back is tried again, like any other',
  async () => {
    const [away] = orgs;
    const name = databaseName(SCHEMA, away);
    await mad.admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    const { rolloutId } = await start();
    expect((await stands(rolloutId)).state).toBe(RolloutState.SUCCEEDED);
    await mad.admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
    await whileRead(away, async () => {
      const held = await runWhen(rolloutId, away, ({ error }) => error.includes('lock timeout'));
      expect(held.state).toBe(RolloutRunState.QUEUED);
    });
    await runWhen(rolloutId, away, ({ state }) => state === RolloutRunState.SUCCEEDED);
    expect(await versionOf(away)).toBe(second.migrationName);
    await rollouts().rollBackRollout({ rolloutId });
    expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.ROLLED_BACK, counts: { rolledBack: 3 } });
  },
  SLOW,
);

test(
  'a database whose record of migrations is empty, or gone, halts a rollout, which names it; repaired it goes on',
  async () => {
    const [emptied, dropped] = orgs;
    await rowsIn(
      emptied,
      `CREATE TABLE public.kept AS SELECT * FROM ${SCHEMA}.migrations; DELETE FROM ${SCHEMA}.migrations`,
    );
    await rowsIn(dropped, `ALTER TABLE ${SCHEMA}.migrations RENAME TO kept`);
    const { rolloutId } = await start();
    const halted = await stands(rolloutId);
    expect(halted.state).toBe(RolloutState.HALTED);
    const missing = `migration ${OLD[0].migrationName} is missing`;
    for (const orgId of [emptied, dropped]) {
      expect(halted.reason).toContain(`${databaseName(SCHEMA, orgId)}: ${missing}`);
    }
    await rowsIn(emptied, `INSERT INTO ${SCHEMA}.migrations SELECT * FROM public.kept; DROP TABLE public.kept`);
    await rowsIn(dropped, `ALTER TABLE ${SCHEMA}.kept RENAME TO migrations`);
    await rollouts().resumeRollout({ rolloutId });
    expect(await stands(rolloutId)).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { succeeded: 3 } });
    await rollouts().rollBackRollout({ rolloutId });
    expect((await stands(rolloutId)).state).toBe(RolloutState.ROLLED_BACK);
  },
  SLOW,
);

test(
  'a request that is repeated answers the first one; with another schema or other rules it is refused by their names',
  async () => {
    const requestId = uuidv7();
    await start({ canaries: 2 }, requestId);
    await stands(requestId);
    expect((await start({ canaries: 2 }, requestId)).rolloutId).toBe(requestId);
    const refused = await failure(start({ canaries: 3, waveSize: 7, verification: true }, requestId));
    expect(refused.code).toBe(Code.AlreadyExists);
    expect(errorMetadataOf(refused)).toMatchObject({ fields: 'rules.canaries,rules.wave_size,rules.verification' });
    expect((await failure(start({}, requestId))).code).toBe(Code.AlreadyExists);

    // Who began it, and who took it back, is in the platform's audit log; a repeat is no news.
    await rollouts().rollBackRollout({ rolloutId: requestId });
    await rollouts().rollBackRollout({ rolloutId: requestId });
    await stands(requestId);
    const told = () =>
      mad.events.filter(({ entityType, entityId }) => `${entityType} ${entityId}` === `rollout ${requestId}`);
    for (let wait = 0; told().length < 2 && wait < 600; wait += 1) await delay(50);
    expect(new Set(told().map(({ action }) => action))).toEqual(new Set(['rollouts.start', 'rollouts.roll_back']));
    expect(told()).toHaveLength(2);
    for (const event of told()) {
      expect(event).toMatchObject({ orgId: '', actorKind: 'platform', userId: ADMIN, outcome: 'ok' });
    }
    // And in each organization's, for what it did there.
    const migrations = () =>
      mad.events.filter(({ action, orgId }) => action === 'tenants.migrate' && orgId === orgs[0]);
    for (let wait = 0; migrations().length < 2 && wait < 600; wait += 1) await delay(50);
    expect(migrations().at(-1)).toMatchObject({ actorKind: 'platform', userId: ADMIN });
  },
  SLOW,
);
