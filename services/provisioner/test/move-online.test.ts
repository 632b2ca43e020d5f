import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { defineMigration } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { MoveMode, OperationState, TenantState, type Operation } from '@mad/proto/provisioner';
import { reasonOf } from '@mad/rpc';
import { openTenants, type Tenants } from '@mad/tenancy';
import { testCluster } from '@mad/testing';
import type { ConnectError } from '@connectrpc/connect';
import { silent } from './neighbours.ts';
import { connectedTo, noWayBack, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';
import { registrationOf, startSecondServer, type SecondServer } from './second-server.ts';

const SCHEMA = 'online';
const WRITERS = 4;

/** What moves while it is written: keys of both kinds, none at all, partitions by day, a sequence, rows of a migration. */
const migrations = [
  defineMigration('2026_01_05_1000_create_entries.ts', {
    up: `
      CREATE TABLE online.entries (entry_id uuid PRIMARY KEY, writer integer NOT NULL, body text NOT NULL);
      CREATE TABLE online.counts (writer integer PRIMARY KEY, value bigint NOT NULL);
      INSERT INTO online.counts SELECT n, 0 FROM generate_series(0, ${WRITERS - 1}) n;
      CREATE TABLE online.log (note text, at timestamptz);
      CREATE SEQUENCE online.tickets;
      CREATE TABLE online.days (day date NOT NULL, ticket bigint NOT NULL, PRIMARY KEY (day, ticket)) PARTITION BY RANGE (day);
      CREATE TABLE online.days_1 PARTITION OF online.days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');`,
    down: 'DROP TABLE online.days, online.log, online.counts, online.entries; DROP SEQUENCE online.tickets',
  }),
];

let mad: RunningProvisioner;
let second: SecondServer;
let old: SecondServer;
let tenants: Tenants;

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations,
    environment: {
      PROVISIONER_SWEEP_MS: '100',
      PROVISIONER_CLEANUP_GRACE_MS: '0',
      PROVISIONER_BACKUP_EVERY_HOURS: '0',
    },
  });
  second = await startSecondServer(mad, 'second');
  old = await startSecondServer(mad, 'old', { wal_level: 'replica' });
  await mad.servers().registerServer(registrationOf(second));
  await mad.servers().registerServer(registrationOf(old));
  tenants = await openTenants({
    schema: SCHEMA,
    entities: [],
    routes: mad.transport('results'),
    node: 'move-test',
    budget: 12,
    logger: silent,
  });
}, 120_000);

afterAll(async () => {
  await tenants?.close();
  await mad?.close();
  await second?.close();
  await old?.close();
});

/** One on the run's own server: the others take none by themselves. */
async function organization(): Promise<{ orgId: string; database: string }> {
  const orgId = uuidv7();
  await mad.rows.query(`UPDATE provisioner.database_servers SET draining = name <> 'local'`);
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  await mad.rows.query('UPDATE provisioner.database_servers SET draining = false');
  expect(tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  return { orgId, database: tenant!.databaseName };
}

async function move(orgId: string, server: string): Promise<Operation> {
  const client = mad.tenantsAs(await mad.platform('platform.tenants.move'));
  const { operation } = await client.moveTenant({ orgId, schema: SCHEMA, server, mode: MoveMode.ONLINE });
  return operation!;
}

/** Writes without a pause until told to stop, each entry once, however often it must be tried. */
class Writer {
  readonly done: Promise<void>;
  readonly #number: number;
  readonly #orgId: string;
  acknowledged = 0;
  retries = 0;
  longestMs = 0;
  stopped = false;

  constructor(orgId: string, number: number) {
    this.#orgId = orgId;
    this.#number = number;
    this.done = this.#run();
  }

  async #run(): Promise<void> {
    while (!this.stopped) {
      const entryId = uuidv7();
      const began = performance.now();
      // What was written is never given up: its answer may be lost, the entry not.
      while (!(await this.#write(entryId))) {
        this.retries += 1;
        await delay(2);
      }
      this.longestMs = Math.max(this.longestMs, performance.now() - began);
      this.acknowledged += 1;
    }
  }

  async #write(entryId: string): Promise<boolean> {
    try {
      await tenants.transact(this.#orgId, async (tx) => {
        const fresh = await tx.execute('INSERT INTO online.entries VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [
          entryId,
          this.#number,
          'x'.repeat(200),
        ]);
        if (fresh === 0) return;
        await tx.execute('UPDATE online.counts SET value = value + 1 WHERE writer = $1', [this.#number]);
        await tx.execute(`INSERT INTO online.log VALUES ($1, now())`, [entryId]);
        await tx.execute(`INSERT INTO online.days VALUES ('2026-01-15', nextval('online.tickets'))`);
      });
      return true;
    } catch (error) {
      if (!['TENANT_MOVED', 'DATABASE_UNAVAILABLE'].includes(reasonOf(error) ?? '')) throw error;
      return false;
    }
  }
}

const COUNTS_SQL = `SELECT (SELECT count(*)::int FROM online.entries) AS entries,
  (SELECT sum(value)::int FROM online.counts) AS counted, (SELECT count(*)::int FROM online.log) AS logged,
  (SELECT count(DISTINCT note)::int FROM online.log) AS distinct_logged, (SELECT count(*)::int FROM online.days) AS days,
  (SELECT max(ticket) <= (SELECT last_value FROM online.tickets) FROM online.days) AS tickets_beyond`;

const testBothWays = noWayBack === '' ? test : test.skip;
testBothWays(
  `moves while writers write: nothing lost, nothing doubled, and the pause is noted${noWayBack}`,
  async () => {
    const { orgId, database } = await organization();
    await tenants.transact(orgId, (tx) =>
      tx.execute(
        `INSERT INTO online.entries SELECT gen_random_uuid(), 0, repeat('y', 200) FROM generate_series(1, 20000)`,
      ),
    );
    const writers = Array.from({ length: WRITERS }, (_, number) => new Writer(orgId, number));
    const pauses: number[] = [];
    let kept = '';
    try {
      // There and back, so that what the first left behind is met by the second.
      for (const server of ['second', 'local']) {
        await delay(500);
        const done = await mad.ended(await move(orgId, server));
        expect(done).toMatchObject({ state: OperationState.SUCCEEDED, error: '', kind: 'move_online' });
        pauses.push(Number(done.result!['pause_ms']));
        kept = done.result!['kept_database'] as string;
        await delay(500);
      }
    } finally {
      for (const writer of writers) writer.stopped = true;
      await Promise.all(writers.map(({ done }) => done));
    }
    const acknowledged = writers.reduce((sum, writer) => sum + writer.acknowledged, 0);
    const longest = Math.round(Math.max(...writers.map(({ longestMs }) => longestMs)));
    const retries = writers.reduce((sum, writer) => sum + writer.retries, 0);
    process.stderr.write(
      `online moves under ${WRITERS} writers: ${acknowledged} entries, ${retries} retries, pauses ${pauses.join(' and ')} ms, ` +
        `longest wait of a writer ${longest} ms\n`,
    );
    const { rows } = await connectedTo(testCluster().adminUrlTo(database), (one) => one.query(COUNTS_SQL));
    expect(rows).toEqual([
      {
        entries: acknowledged + 20_000,
        counted: acknowledged,
        logged: acknowledged,
        distinct_logged: acknowledged,
        days: acknowledged,
        tickets_beyond: true,
      },
    ]);
    expect(retries).toBeGreaterThan(0);
    // The stream left nothing behind: no slot, no login, no publication, no rows sent whole.
    for (const admin of [mad.admin, second.admin]) {
      const left = await admin.query(
        `SELECT slot_name FROM pg_replication_slots UNION ALL
       SELECT rolname FROM pg_roles WHERE rolname LIKE 'mad\\_online\\_move%' UNION ALL
       SELECT subname FROM pg_subscription`,
      );
      expect(left.rows).toEqual([]);
    }
    expect(kept).toMatch(/_old_/);
    const drift = await mad.drift().listDrift({ orgId, schema: SCHEMA });
    expect(drift.tenants).toMatchObject([{ differences: [], error: '' }]);
  },
  300_000,
);

test('given up, or found to differ, it leaves the tenant where it was, and no slot that keeps the log', async () => {
  const { orgId, database } = await organization();
  await tenants.transact(orgId, (tx) =>
    tx.execute(`INSERT INTO online.log SELECT repeat(md5(n::text), 10), now() FROM generate_series(1, 200000) n`),
  );
  const copying = async ({ operationId }: Operation): Promise<void> => {
    for (let wait = 0; wait < 5_000; wait += 1) {
      const { operation: now } = await mad.operations().getOperation({ operationId });
      if (now!.step === 'catch_up') return;
      await delay(5);
    }
    throw new Error('it never caught up');
  };
  // A copy that differs, found behind the fence: everybody works on where they did.
  const differing = await move(orgId, 'second');
  await copying(differing);
  await connectedTo(second.adminUrlTo(database), (one) =>
    one.query(`INSERT INTO online.log VALUES ('a stranger', now())`),
  );
  expect(await mad.ended(differing)).toMatchObject({
    state: OperationState.FAILED,
    step: 'drain',
    error: 'log has 200001 rows of 200000',
  });
  await tenants.transact(orgId, (tx) => tx.execute(`INSERT INTO online.log VALUES ('between', now())`));

  const operation = await move(orgId, 'second');
  await copying(operation);
  await mad.operations().cancelOperation({ operationId: operation.operationId });
  expect(await mad.ended(operation)).toMatchObject({ state: OperationState.CANCELLED });
  await tenants.transact(orgId, (tx) => tx.execute(`INSERT INTO online.log VALUES ('after', now())`));
  for (const admin of [mad.admin, second.admin]) {
    expect((await admin.query('SELECT FROM pg_replication_slots')).rowCount).toBe(0);
    expect((await admin.query('SELECT FROM pg_subscription')).rowCount).toBe(0);
  }
  const { rows } = await connectedTo(testCluster().adminUrlTo(database), (one) =>
    one.query(`SELECT (SELECT count(*)::int FROM pg_publication) AS publications, relreplident FROM pg_class
               WHERE oid = 'online.log'::regclass`),
  );
  expect(rows).toEqual([{ publications: 0, relreplident: 'd' }]);
  for (let wait = 0; wait < 1_000 && (await second.objects()).databases.includes(database); wait += 1) await delay(50);
  expect((await second.objects()).databases).not.toContain(database);

  // And what a server must be able to do is said before anything is begun.
  await mad.rows.query(
    `UPDATE provisioner.tenants SET server_id = (SELECT server_id FROM provisioner.database_servers WHERE name = 'old')
     WHERE org_id = $1`,
    [orgId],
  );
  const refused = (await move(orgId, 'second').catch((error: unknown) => error)) as ConnectError;
  expect([reasonOf(refused), refused.rawMessage]).toEqual([
    'REPLICATION_UNAVAILABLE',
    'mode: old has wal_level = replica, which logical replication cannot work with: prepare the server anew, or move offline',
  ]);
}, 300_000);
