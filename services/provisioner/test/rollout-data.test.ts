import { setTimeout as delay } from 'node:timers/promises';
import { createClient } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions, defineDataChange, defineMigration, type MigrationClass } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { RolloutRunState, RolloutService, RolloutState, type Rollout } from '@mad/proto/provisioner';
import type { RpcServer } from '@mad/rpc';
import { platformToken, served, ServiceProcess, testCluster } from '@mad/testing';
import pg from 'pg';
import { databaseName } from '../src/domain/names.ts';
import { noteMigrations, serveSchemaOwner } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SLOW = 120_000;
const SCHEMA = 'rowchange';
const FLEET = 2;
const ROWS = 200;
/** Expand, change, contract: each a version of its own. */
const expand = defineMigration('2026_01_07_1000_add_shout.ts', {
  up: `ALTER TABLE ${SCHEMA}.notes ADD COLUMN shout text NOT NULL DEFAULT '', ADD COLUMN touched integer NOT NULL DEFAULT 0`,
  down: `ALTER TABLE ${SCHEMA}.notes DROP COLUMN shout, DROP COLUMN touched`,
});
const fill = defineDataChange('2026_01_08_1000_fill_shout.ts', {
  schema: SCHEMA,
  table: 'notes',
  key: 'note_id',
  pending: `t.shout = ''`,
  // A note with two stars cannot be changed.
  change: `UPDATE ${SCHEMA}.notes SET shout = upper(body), touched = touched + 1 / (2 - stars) * (2 - stars)
    WHERE note_id = ANY ($1)`,
  batch: 20,
  // Longer in all than a slice of it may take.
  restMs: 150,
});
const contract = defineMigration('2026_01_09_1000_require_shout.ts', {
  up: `ALTER TABLE ${SCHEMA}.notes ADD CONSTRAINT notes_shout_check CHECK (shout <> '')`,
  down: `ALTER TABLE ${SCHEMA}.notes DROP CONSTRAINT notes_shout_check`,
});
const OLD = [...noteMigrations(SCHEMA), expand];

let mad: RunningProvisioner;
let owner: RpcServer;
let orgs: string[];

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA, migrations: OLD, environment: { PROVISIONER_STOCK_SIZE: '0' } });
  owner = mad.owner;
  orgs = Array.from({ length: FLEET }, () => uuidv7()).toSorted();
  for (const orgId of orgs) {
    await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    await inside(
      orgId,
      `INSERT INTO ${SCHEMA}.notes (body, stars) SELECT 'note ' || n, 1 FROM generate_series(1, ${ROWS}) n`,
    );
  }
}, SLOW);

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

const versionOf = async (orgId: string): Promise<string> =>
  (await inside<{ name: string }>(orgId, `SELECT name FROM ${SCHEMA}.migrations ORDER BY "timestamp" DESC LIMIT 1`))[0]!
    .name;

/** How many times rows were changed, and how many rows that often. */
const touched = (orgId: string) =>
  inside<{ touched: number; rows: number }>(
    orgId,
    `SELECT touched, count(*)::int AS rows FROM ${SCHEMA}.notes GROUP BY 1 ORDER BY 1`,
  );

async function changed(orgId: string): Promise<number> {
  const [row] = await inside<{ count: number }>(
    orgId,
    `SELECT count(*)::int AS count FROM ${SCHEMA}.notes WHERE shout <> ''`,
  );
  return row!.count;
}

async function watched(rolloutId: string): Promise<Rollout[]> {
  const seen: Rollout[] = [];
  for await (const { rollout } of mad.rollouts().watchRollout({ rolloutId })) seen.push(rollout!);
  return seen;
}

describe('a change of rows', () => {
  test(
    'is planned with its rows; one that fails names tenant, migration and key, and a resume changes the others once',
    async () => {
      await release([...OLD, fill]);
      // Late in the order of keys, so that whole batches come before it.
      const [bad] = await inside<{ note_id: string }>(
        orgs[0]!,
        `UPDATE ${SCHEMA}.notes SET stars = 2 WHERE note_id = (
           SELECT note_id FROM ${SCHEMA}.notes ORDER BY note_id OFFSET 150 LIMIT 1) RETURNING note_id`,
      );
      const plan = await mad.rollouts().planRollout({ schema: SCHEMA, pageSize: 10 });
      expect(plan.tenants.map(({ rowsToChange, triedWithoutData }) => [rowsToChange, triedWithoutData])).toEqual(
        orgs.map(() => [BigInt(ROWS), [fill.migrationName]]),
      );
      expect(plan.migrations.find(({ name }) => name === fill.migrationName)!.sql).toContain('20 rows at a time');
      expect(await changed(orgs[0]!)).toBe(0);

      const { rollout } = await mad.rollouts().startRollout({ schema: SCHEMA, requestId: uuidv7() });
      const { rolloutId } = rollout!;
      const seen = await watched(rolloutId);
      expect(seen.at(-1)!.state).toBe(RolloutState.HALTED);
      expect(seen.some(({ rowsChanged, rowsToChange }) => rowsChanged > 0n && rowsToChange >= BigInt(ROWS))).toBe(true);
      const { runs } = await mad.rollouts().listRolloutRuns({ rolloutId, state: RolloutRunState.FAILED });
      expect(runs.map(({ orgId }) => orgId)).toEqual([orgs[0]]);
      const [, cursor] = new RegExp(
        `migration ${fill.migrationName} failed: ${SCHEMA}.notes after note_id ([0-9a-f-]{36}): division by zero`,
      ).exec(runs[0]!.error)!;
      expect(cursor! < bad!.note_id).toBe(true);
      // Whole batches before it are kept, and the database has not the version.
      expect(await changed(orgs[0]!)).toBe(140);
      expect(await versionOf(orgs[0]!)).toBe(expand.migrationName);

      await inside(orgs[0]!, `UPDATE ${SCHEMA}.notes SET stars = 1`);
      await mad.rollouts().resumeRollout({ rolloutId });
      expect((await watched(rolloutId)).at(-1)!.state).toBe(RolloutState.SUCCEEDED);
      for (const orgId of orgs) {
        expect(await touched(orgId)).toEqual([{ touched: 1, rows: ROWS }]);
        expect(await versionOf(orgId)).toBe(fill.migrationName);
      }
    },
    SLOW,
  );

  test(
    'goes on after kill -9 and lost connections behind the rows that are changed, then rows that came meanwhile, then the next version',
    async () => {
      const again = defineDataChange('2026_01_10_1000_fill_again.ts', {
        schema: SCHEMA,
        table: 'notes',
        key: 'note_id',
        pending: 't.touched % 10 = 1 OR t.touched = 0',
        change: `UPDATE ${SCHEMA}.notes SET shout = upper(body), touched = touched + 10 - touched % 10 WHERE note_id = ANY ($1)`,
        batch: 20,
        restMs: 60,
      });
      const last = defineMigration('2026_01_11_1000_all_changed.ts', {
        up: `ALTER TABLE ${SCHEMA}.notes ADD CONSTRAINT notes_touched_check CHECK (touched >= 10)`,
        down: `ALTER TABLE ${SCHEMA}.notes DROP CONSTRAINT notes_touched_check`,
      });
      await release([...OLD, fill, contract, again, last]);
      const provisioner = await ServiceProcess.of('provisioner', mad.environment);
      try {
        // Only the process that is killed works.
        await mad.stop();
        provisioner.start();
        const permissions = ['read', 'start', 'control'].map((verb) => `platform.rollouts.${verb}`);
        const rollouts = createClient(
          RolloutService,
          provisioner.as(() => platformToken({ permissions })),
        );
        const requestId = uuidv7();
        await served(() =>
          rollouts.startRollout({ schema: SCHEMA, requestId, rules: { attempts: 20, concurrency: 1 } }),
        );
        const done = async (): Promise<number> => {
          const counts = await Promise.all(
            orgs.map((orgId) =>
              inside<{ n: number }>(orgId, `SELECT count(*)::int AS n FROM ${SCHEMA}.notes WHERE touched >= 10`),
            ),
          );
          return counts.reduce((sum, [row]) => sum + row!.n, 0);
        };
        let kills = 0;
        for (const share of [0.15, 0.45, 0.8]) {
          while ((await done()) < share * FLEET * ROWS) await delay(20);
          await provisioner.kill();
          kills += 1;
          // The owner's own work is broken off in the middle as well.
          await inside(
            orgs[0]!,
            `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mad-migrate' AND starts_with(datname, 'mad_${SCHEMA}_')`,
          );
          if (kills === 2) {
            // Written by a release that knows nothing of it, in front of the cursor as well as behind it.
            await inside(
              orgs.at(-1)!,
              `INSERT INTO ${SCHEMA}.notes (body, shout, touched) SELECT 'late ' || n, 'x', 1 FROM generate_series(1, 30) n`,
            );
          }
          provisioner.start();
        }
        const ended = async (): Promise<Rollout> => {
          for (;;) {
            const { rollout } = await served(() => rollouts.getRollout({ rolloutId: requestId }));
            if (rollout!.state !== RolloutState.RUNNING) return rollout!;
            await delay(50);
          }
        };
        const { state, reason } = await ended();
        expect([RolloutState[state], reason]).toEqual(['SUCCEEDED', '']);
        for (const [index, orgId] of orgs.entries()) {
          expect(await touched(orgId)).toEqual([{ touched: 10, rows: ROWS + (index === FLEET - 1 ? 30 : 0) }]);
          expect(await versionOf(orgId)).toBe(last.migrationName);
        }
      } finally {
        await provisioner.close();
      }
    },
    SLOW,
  );
});
