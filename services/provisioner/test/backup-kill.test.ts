import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createClient, type Client } from '@connectrpc/connect';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { BackupService, TenantService, TenantState } from '@mad/proto/provisioner';
import {
  KILL_SETTINGS,
  killAtStep,
  oneRow,
  operationEnded,
  platformToken,
  served,
  ServiceProcess,
  serviceToken,
  sweptClean,
  testCluster,
} from '@mad/testing';
import pg from 'pg';
import { PLANS } from '../src/domain/plan.ts';
import { archivedMigrations, contentOf, fill } from './archived-schema.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'bkill';
const KINDS = ['backup', 'verify_backup', 'restore', 'restore_table'] as const;
const KILLS = 2;
const MAX_ROUNDS = 60;

let mad: RunningProvisioner;
let provisioner: ServiceProcess;
let backups: Client<typeof BackupService>;

// Each attempt at the test has its own: what a failed one left is not counted.
beforeEach(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: archivedMigrations(SCHEMA),
    idle: true,
    environment: { ...KILL_SETTINGS },
  });
  provisioner = await ServiceProcess.of('provisioner', mad.environment);
  const permissions = ['create', 'read', 'verify', 'restore'].map((verb) => `platform.backups.${verb}`);
  backups = createClient(
    BackupService,
    provisioner.as(() => platformToken({ permissions })),
  );
});

afterEach(async () => {
  await provisioner?.close();
  await mad?.close();
});

const one = async <R extends pg.QueryResultRow>(sql: string, ...values: unknown[]): Promise<R> =>
  (await oneRow<R>(mad.rows, sql, ...values))!;

/** Kills the process at a step it cannot note as done; undefined when it was too fast. */
const killAt = (operationId: string, step: string) =>
  killAtStep({ rows: mad.rows, operationId, step, withinMs: 120, kill: () => provisioner.kill() });

const ended = (operationId: string) => operationEnded(mad.rows, operationId);

async function begin(kind: (typeof KINDS)[number], orgId: string, backupId: string): Promise<string> {
  return served(async () => {
    // An answer that was lost has begun one all the same.
    const running = await one<{ operation_id: string }>(
      `SELECT operation_id FROM provisioner.operations WHERE kind = $1 AND state = 'running'`,
      kind,
    );
    if (running !== undefined) return running.operation_id;
    const { operation } =
      kind === 'backup'
        ? await backups.createBackup({ orgId, schema: SCHEMA }, { timeoutMs: 5_000 })
        : kind === 'verify_backup'
          ? await backups.verifyBackup({ backupId }, { timeoutMs: 5_000 })
          : kind === 'restore_table'
            ? await backups.restoreTable({ backupId, table: 'animals' }, { timeoutMs: 5_000 })
            : await backups.restoreBackup({ backupId, keepHours: 0 }, { timeoutMs: 5_000 });
    return operation!.operationId;
  });
}

test('kill -9 in every step of backup, verify and restores, of all and of one table: each ends well, data whole, nothing orphaned', async () => {
  provisioner.start();
  const orgId = uuidv7();
  const tenants = createClient(
    TenantService,
    provisioner.as(() => serviceToken('identity')),
  );
  const { tenant } = await served(() => tenants.ensureTenant({ orgId, schema: SCHEMA }));
  expect(tenant!.state).toBe(TenantState.READY);
  const database = tenant!.databaseName;
  const inside = async <T>(fn: (client: pg.Client) => Promise<T>): Promise<T> => {
    const client = new pg.Client(clientOptions(testCluster().adminUrlTo(database)));
    await client.connect();
    try {
      return await fn(client);
    } finally {
      await client.end();
    }
  };
  await inside((client) => fill(client, SCHEMA, 4_000));
  const before = await inside((client) => contentOf(client, SCHEMA));
  const first = await begin('backup', orgId, '');
  expect(await ended(first)).toEqual({ state: 'succeeded', error: '' });
  const { backup_id: backupId } = await one<{ backup_id: string }>('SELECT backup_id FROM provisioner.backups');

  const wanted = KINDS.flatMap((kind) => PLANS[kind].steps.map((step) => ({ kind, step })));
  const died = new Map(wanted.map(({ kind, step }) => [`${kind} ${step}`, 0]));
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const next = wanted.find(({ kind, step }) => died.get(`${kind} ${step}`)! < KILLS);
    if (next === undefined) break;
    const operationId = await begin(next.kind, orgId, backupId);
    // Twice in one operation: whoever resumes it dies at the same place.
    for (let again = 0; again < KILLS; again += 1) {
      const step = await killAt(operationId, next.step);
      // One that was killed in no step is missed as well.
      provisioner.start();
      if (step === undefined) break;
      const where = `${next.kind} ${step}`;
      died.set(where, (died.get(where) ?? 0) + 1);
    }
    expect({ ...next, ...(await ended(operationId)) }).toEqual({ ...next, state: 'succeeded', error: '' });
    expect(await inside((client) => contentOf(client, SCHEMA))).toEqual(before);
  }
  expect([...died].filter(([, times]) => times < KILLS)).toEqual([]);

  // Swept clean: databases, rights, archives.
  await sweptClean(mad.rows);
  expect((await mad.objects()).databases).toEqual([database]);
  const { rows: rights } = await mad.admin.query(
    `SELECT DISTINCT a.grantee::regrole::text AS grantee FROM pg_database d, aclexplode(d.datacl) a
     WHERE d.datname = $1 AND a.grantee <> d.datdba ORDER BY 1`,
    [database],
  );
  expect(rights).toEqual([{ grantee: `${database}_a` }, { grantee: `${database}_b` }]);
  const { rows: noted } = await mad.rows.query<{ object_key: string }>(
    'SELECT object_key FROM provisioner.backups WHERE completed_at IS NOT NULL ORDER BY 1',
  );
  const kept = await readdir(mad.objectsFolder, { recursive: true, withFileTypes: true });
  const files = kept.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
  expect(files.map((file) => file.slice(mad.objectsFolder.length + 1)).sort()).toEqual(
    noted.map(({ object_key: key }) => key),
  );
  const { state, step } = await one<{ state: string; step: string | null }>(
    'SELECT state, step FROM provisioner.tenants',
  );
  expect({ state, step }).toEqual({ state: 'ready', step: null });
}, 600_000);
