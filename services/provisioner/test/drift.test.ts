import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions, defineMigration } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { DifferenceKind, OperationState, type TenantDrift } from '@mad/proto/provisioner';
import { testCluster } from '@mad/testing';
import pg from 'pg';
import { databaseName } from '../src/domain/names.ts';
import { noteMigrations } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'drift';
const FLEET = 12;

/** What a tenant schema has that drift may be in: keys, checks, an index, partitions, a function, a trigger. */
const rich = defineMigration('2026_01_07_1000_rich.ts', {
  up: `
CREATE TABLE ${SCHEMA}.marks (mark_id uuid NOT NULL, note_id uuid NOT NULL, score integer NOT NULL,
  CONSTRAINT marks_pkey PRIMARY KEY (mark_id),
  CONSTRAINT marks_note_id_fkey FOREIGN KEY (note_id) REFERENCES ${SCHEMA}.notes (note_id),
  CONSTRAINT marks_score_check CHECK (score BETWEEN 0 AND 100));
CREATE INDEX idx_marks_note_id ON ${SCHEMA}.marks (note_id);
CREATE TABLE ${SCHEMA}.events (event_id uuid NOT NULL, at integer NOT NULL, CONSTRAINT events_pkey PRIMARY KEY (event_id, at))
  PARTITION BY RANGE (at);
CREATE TABLE ${SCHEMA}.events_other PARTITION OF ${SCHEMA}.events DEFAULT;
CREATE INDEX idx_events_at ON ${SCHEMA}.events (at);
CREATE FUNCTION ${SCHEMA}.stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER stamp BEFORE INSERT ON ${SCHEMA}.marks FOR EACH ROW EXECUTE FUNCTION ${SCHEMA}.stamp();`,
  down: `DROP TABLE ${SCHEMA}.events, ${SCHEMA}.marks; DROP FUNCTION ${SCHEMA}.stamp()`,
});

let mad: RunningProvisioner;
let orgs: string[];

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA, migrations: [...noteMigrations(SCHEMA), rich] });
  orgs = Array.from({ length: FLEET }, () => uuidv7());
  for (const orgId of orgs) await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
}, 120_000);

afterAll(() => mad?.close());

async function inside(orgId: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client(clientOptions(testCluster().adminUrlTo(databaseName(SCHEMA, orgId))));
  await client.connect();
  try {
    for (const sql of statements) await client.query(sql);
  } finally {
    await client.end();
  }
}

async function sweep(pageSize = 5): Promise<TenantDrift[]> {
  const found: TenantDrift[] = [];
  for (let pageToken = ''; ;) {
    const page = await mad.drift().listDrift({ pageSize, pageToken });
    found.push(...page.tenants);
    if (page.nextPageToken === '') return found;
    pageToken = page.nextPageToken;
  }
}

async function driftOf(orgId: string): Promise<string[]> {
  const { tenants } = await mad.drift().listDrift({ orgId });
  expect(tenants).toHaveLength(1);
  return tenants[0]!.differences.map((one) => `${DifferenceKind[one.difference]} ${one.kind} ${one.name}`);
}

async function repair(orgId: string): Promise<{ state: OperationState; error: string }> {
  const { planDigest } = await mad.drift().planRepair({ orgId, schema: SCHEMA });
  const { operation } = await mad.drift().repairTenant({ orgId, schema: SCHEMA, planDigest });
  for (;;) {
    const { operation: now } = await mad.operations().getOperation({ operationId: operation!.operationId });
    if (now!.state !== OperationState.RUNNING) return { state: now!.state, error: now!.error };
    await delay(50);
  }
}

describe('a sweep', () => {
  test('finds and names the one index that somebody dropped by hand, and nothing else anywhere', async () => {
    await inside(orgs[7]!, `DROP INDEX ${SCHEMA}.idx_marks_note_id`);
    const found = await sweep();
    expect(found.map(({ orgId }) => orgId)).toEqual(orgs.toSorted());
    expect(found.every(({ error }) => error === '')).toBe(true);
    const drifted = found.filter(({ differences }) => differences.length > 0);
    expect(drifted).toMatchObject([
      {
        orgId: orgs[7],
        schemaVersion: rich.migrationName,
        differences: [{ difference: DifferenceKind.MISSING, kind: 'index', name: 'idx_marks_note_id', actual: '' }],
      },
    ]);
    expect(drifted[0]!.differences[0]!.expected).toContain('USING btree (note_id)');
  });

  test('takes neither partitions by range nor the rights of a read-only tenant for drift', async () => {
    const [partitioned, frozen] = orgs as [string, string];
    await inside(
      partitioned,
      `CREATE TABLE ${SCHEMA}.events_1 PARTITION OF ${SCHEMA}.events FOR VALUES FROM (1) TO (2)`,
      `ALTER TABLE ${SCHEMA}.events_1 OWNER TO mad_${SCHEMA}_owner`,
    );
    await mad.tenants().freezeTenants({ orgId: frozen });
    expect(await driftOf(partitioned)).toEqual([]);
    expect(await driftOf(frozen)).toEqual([]);
    await mad.tenants().resumeTenants({ orgId: frozen });
  });

  test('says of a database it cannot look at why, and goes on with the others', async () => {
    const name = databaseName(SCHEMA, orgs[3]!);
    await mad.admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS false`);
    const found = await sweep(200);
    await mad.admin.query(`ALTER DATABASE ${name} ALLOW_CONNECTIONS true`);
    expect(found).toHaveLength(FLEET);
    expect(found.filter(({ error }) => error !== '')).toMatchObject([{ orgId: orgs[3], schemaVersion: '' }]);
  });

  test('leaves no database behind that it made to compare with', async () => {
    expect((await mad.objects()).databases).toEqual(orgs.map((orgId) => databaseName(SCHEMA, orgId)).toSorted());
  });
});

describe('health', () => {
  const health = async (orgId: string) => (await mad.statistics().listTenantHealth({ orgId })).tenants[0]!;
  const drop = (orgId: string) => inside(orgId, `DROP INDEX ${SCHEMA}.idx_marks_note_id`);
  const lookedAtYesterday = (orgId: string) =>
    mad.rows.query(`UPDATE provisioner.tenants SET drift_looked_at = now() - interval '25 hours' WHERE org_id = $1`, [
      orgId,
    ]);
  const found = async (orgId: string, count: number | undefined) => {
    await lookedAtYesterday(orgId);
    for (const until = performance.now() + 20_000; ; await delay(50)) {
      const { driftTime, driftCount } = await health(orgId);
      if (driftCount === count && Date.now() - Number(driftTime!.seconds) * 1_000 < 60_000) return;
      if (performance.now() > until) throw new Error(`${driftCount} of ${count} at ${driftTime?.seconds}`);
    }
  };

  test('shows what the last look found: the one that was asked for, the repair, the one by the clock', async () => {
    const orgId = uuidv7();
    await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    const fresh = await health(orgId);
    expect([fresh.driftTime, fresh.driftCount, fresh.problem]).toEqual([undefined, undefined, '']);
    await drop(orgId);
    expect(await driftOf(orgId)).toHaveLength(1);
    expect(await health(orgId)).toMatchObject({
      driftCount: 1,
      problem: '1 object differs from what its version makes',
    });
    expect(await repair(orgId)).toMatchObject({ state: OperationState.SUCCEEDED });
    expect(await health(orgId)).toMatchObject({ driftCount: 0, problem: '' });
    await drop(orgId);
    await found(orgId, 1);
  });

  test('says that a database could not be looked at, and the others come to their turn', async () => {
    const [closed, other] = [uuidv7(), uuidv7()];
    for (const orgId of [closed, other]) await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    await drop(other);
    await mad.admin.query(`ALTER DATABASE ${databaseName(SCHEMA, closed)} ALLOW_CONNECTIONS false`);
    await driftOf(closed);
    await found(closed, undefined);
    await found(other, 1);
    await mad.admin.query(`ALTER DATABASE ${databaseName(SCHEMA, closed)} ALLOW_CONNECTIONS true`);
    await found(closed, 0);
  });
});

describe('a difference', () => {
  test.each([
    ['a column more', `ALTER TABLE notes ADD COLUMN odd text`, ['UNEXPECTED column notes.odd']],
    ['another default', `ALTER TABLE notes ALTER COLUMN stars SET DEFAULT 1`, ['DIFFERENT column notes.stars']],
    [
      'a lost check',
      `ALTER TABLE marks DROP CONSTRAINT marks_score_check`,
      ['MISSING constraint marks.marks_score_check'],
    ],
    ['a lost right', `REVOKE INSERT ON notes FROM mad_${SCHEMA}_app`, ['DIFFERENT rights table notes']],
    ['a disabled trigger', `ALTER TABLE marks DISABLE TRIGGER stamp`, ['DIFFERENT trigger marks.stamp']],
    [
      'another function',
      `CREATE OR REPLACE FUNCTION star_count() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'`,
      ['DIFFERENT function star_count()'],
    ],
    [
      'a forged record',
      `INSERT INTO migrations ("timestamp", name) VALUES (1, 'Forged1')`,
      ['UNEXPECTED migration Forged1', 'DIFFERENT migration'],
    ],
  ])('is named: %s', async (_what, sql, expected) => {
    const orgId = uuidv7();
    await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    await inside(orgId, `SET search_path = ${SCHEMA}`, sql);
    const found = await driftOf(orgId);
    for (const one of expected) expect(found).toContainEqual(expect.stringContaining(one));
  });
});

describe('a repair', () => {
  test('makes again what holds no data, as planned, and says what it leaves', async () => {
    const orgId = uuidv7();
    await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    await inside(
      orgId,
      `SET search_path = ${SCHEMA}`,
      'DROP INDEX idx_marks_note_id, idx_events_at',
      'ALTER TABLE marks DROP CONSTRAINT marks_pkey, DROP CONSTRAINT marks_score_check, DROP CONSTRAINT marks_note_id_fkey',
      'DROP TRIGGER stamp ON marks',
      'DROP FUNCTION stamp(), star_count()',
      `REVOKE INSERT, DELETE ON notes FROM mad_${SCHEMA}_app`,
      'CREATE INDEX odd ON notes (body)',
    );
    const plan = await mad.drift().planRepair({ orgId, schema: SCHEMA });
    expect(plan.statements.filter((one) => one.includes('INDEX'))).toEqual([
      expect.stringContaining('CREATE INDEX idx_events_at ON ONLY drift.events USING btree (at) -- and CONCURRENTLY'),
      'CREATE INDEX CONCURRENTLY idx_marks_note_id ON drift.marks USING btree (note_id)',
      'CREATE UNIQUE INDEX CONCURRENTLY marks_pkey ON drift.marks USING btree (mark_id)',
      'ALTER TABLE drift.marks ADD CONSTRAINT marks_pkey PRIMARY KEY USING INDEX marks_pkey',
    ]);
    expect(plan.left.map(({ difference, why }) => [difference!.name, why])).toEqual([
      ['odd', expect.stringContaining('by hand')],
    ]);
    expect(await repair(orgId)).toEqual({ state: OperationState.SUCCEEDED, error: '' });
    expect(await driftOf(orgId)).toEqual(['UNEXPECTED index odd']);
  });

  test('makes an index again that a crash left invalid', async () => {
    const orgId = uuidv7();
    await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    const forged = `UPDATE pg_index SET indisvalid = false WHERE indexrelid = '${SCHEMA}.idx_marks_note_id'::regclass`;
    await inside(orgId, forged);
    expect(await driftOf(orgId)).toEqual(['DIFFERENT index idx_marks_note_id']);
    expect(await repair(orgId)).toMatchObject({ state: OperationState.SUCCEEDED });
    expect(await driftOf(orgId)).toEqual([]);
  });

  test('runs nothing that is not the plan somebody read', async () => {
    const orgId = uuidv7();
    await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    await inside(orgId, `DROP INDEX ${SCHEMA}.idx_marks_note_id`);
    const { planDigest } = await mad.drift().planRepair({ orgId, schema: SCHEMA });
    await inside(orgId, `DROP INDEX ${SCHEMA}.idx_events_at`);
    await expect(mad.drift().repairTenant({ orgId, schema: SCHEMA, planDigest })).rejects.toMatchObject({
      code: Code.FailedPrecondition,
    });
    expect(await driftOf(orgId)).toHaveLength(2);
  });

  test('that meets data it cannot stand on fails, says why, and leaves nothing invalid', async () => {
    const orgId = uuidv7();
    await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    await inside(
      orgId,
      `SET search_path = ${SCHEMA}`,
      'ALTER TABLE marks DROP CONSTRAINT marks_pkey, DROP CONSTRAINT marks_note_id_fkey',
      `INSERT INTO marks SELECT '00000000-0000-7000-8000-000000000000', '00000000-0000-7000-8000-000000000000', 1 FROM generate_series(1, 2)`,
    );
    const { state, error } = await repair(orgId);
    expect(state).toBe(OperationState.FAILED);
    expect(error).toContain('marks_pkey');
    expect((await driftOf(orgId)).filter((one) => one.includes('marks_pkey'))).toEqual([
      'MISSING constraint marks.marks_pkey',
      'MISSING index marks_pkey',
    ]);
  });
});

test('a database that is not what its version makes is not migrated, and the object is named', async () => {
  const orgId = uuidv7();
  await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  await inside(orgId, `DROP INDEX ${SCHEMA}.idx_marks_note_id`);
  const token = await mad.platform('platform.tenants.migrate');
  await expect(mad.tenantsAs(token).migrateTenant({ orgId, schema: SCHEMA })).rejects.toMatchObject({
    code: Code.FailedPrecondition,
    message: expect.stringContaining('index idx_marks_note_id is missing'),
  });
});
