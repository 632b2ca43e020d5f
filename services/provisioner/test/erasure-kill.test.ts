import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createClient, type Client } from '@connectrpc/connect';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { BackupService, ErasureService, TenantService, TenantState } from '@mad/proto/provisioner';
import {
  KILL_SETTINGS,
  killAtStep,
  oneRow,
  operationEnded,
  platformToken,
  served,
  ServiceProcess,
  serviceToken,
} from '@mad/testing';
import type pg from 'pg';
import { PLANS } from '../src/domain/plan.ts';
import { archivedMigrations } from './archived-schema.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'ekill';
const KILLS = 2;
const MAX_ROUNDS = 40;
const END_MS = 120_000;
const OBJECTS = 3;
const ROWS = 9;

let mad: RunningProvisioner;
let provisioner: ServiceProcess;
let tenants: Client<typeof TenantService>;
let backups: Client<typeof BackupService>;
let erasures: Client<typeof ErasureService>;

// Each attempt at the test has its own: what a failed one left is not counted.
beforeEach(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: archivedMigrations(SCHEMA),
    idle: true,
    environment: { ...KILL_SETTINGS },
  });
  provisioner = await ServiceProcess.of('provisioner', mad.environment);
  tenants = createClient(
    TenantService,
    provisioner.as(() => serviceToken('identity')),
  );
  backups = createClient(
    BackupService,
    provisioner.as(() => platformToken({ permissions: ['platform.backups.create'] })),
  );
  erasures = createClient(
    ErasureService,
    provisioner.as(() => platformToken({ permissions: ['platform.erasures.read'] })),
  );
});

afterEach(async () => {
  await provisioner?.close();
  await mad?.close();
});

const one = async <R extends pg.QueryResultRow>(sql: string, ...values: unknown[]): Promise<R> =>
  (await oneRow<R>(mad.rows, sql, ...values))!;

async function until<T>(ask: () => Promise<T | undefined>): Promise<T> {
  for (const end = performance.now() + END_MS; performance.now() < end; await delay(10)) {
    const answer = await ask();
    if (answer !== undefined) return answer;
  }
  throw new Error('it never happened');
}

/** Kills the process at a step it cannot note as done; undefined when it was too fast. */
const killAt = (operationId: string, step: string) =>
  killAtStep({ rows: mad.rows, operationId, step, withinMs: 60, kill: () => provisioner.kill() });

/** The operation that erases an organization, once there is one. */
const erasureOf = (orgId: string): Promise<string> =>
  until(async () => {
    const sql = `SELECT operation_id FROM provisioner.operations WHERE org_id = $1 AND kind = 'erase'`;
    return (await oneRow<{ operation_id: string }>(mad.rows, sql, orgId))?.operation_id;
  });

/** An organization with a database, a backup, objects, rows at their owners, and a database somebody replaced. */
async function organization(): Promise<string> {
  const orgId = uuidv7();
  const { tenant } = await served(() => tenants.ensureTenant({ orgId, schema: SCHEMA }));
  expect(tenant!.state).toBe(TenantState.READY);
  const { operation } = await backups.createBackup({ orgId, schema: SCHEMA });
  expect(await operationEnded(mad.rows, operation!.operationId)).toEqual({ state: 'succeeded', error: '' });
  for (let n = 0; n < OBJECTS; n += 1) {
    const file = join(mad.objectsFolder, 'orgs', orgId, 'artifacts', String(n));
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, 'content');
  }
  mad.ownedRows.left.set(orgId, ROWS);
  const replaced = `mad_${SCHEMA}_old_${orgId.replaceAll('-', '').slice(-16)}`;
  await mad.admin.query(`CREATE DATABASE ${replaced} OWNER mad_provisioner_admin`);
  await mad.rows.query(
    `INSERT INTO provisioner.cleanup_records (operation_id, org_id, schema, server_id, object_kind, object_name, keep_until)
     SELECT operation_id, org_id, schema, server_id, 'database', $2, now() + interval '7 days'
     FROM provisioner.tenants WHERE org_id = $1`,
    [orgId, replaced],
  );
  return orgId;
}

test('kill -9 in every step of an erasure: each ends erased, counted once, with nothing orphaned', async () => {
  provisioner.start();
  const bystander = await organization();
  const kept = await mad.objects();
  const died = new Map(PLANS.erase.steps.map((step) => [step as string, 0]));
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const next = [...died].find(([, times]) => times < KILLS)?.[0];
    if (next === undefined) break;
    const orgId = await organization();
    const erasureId = uuidv7();
    const request = { orgId, erasureId, slug: 'acme', requestedBy: uuidv7() };
    // Its answer is lost with the process; whoever asks again hears of the same erasure.
    const asked = tenants.eraseTenants(request, { timeoutMs: END_MS }).catch(() => undefined);
    // Twice in one operation: whoever resumes it dies at the same place.
    for (let again = 0; again < KILLS; again += 1) {
      const step = await killAt(await erasureOf(orgId), next);
      // One that was killed in no step is missed as well.
      provisioner.start();
      if (step === undefined) break;
      died.set(step, (died.get(step) ?? 0) + 1);
    }
    await asked;
    const ended = await until(async () => {
      const now = await one<{ state: string; error: string; n: number }>(
        `SELECT state, error, count(*) OVER ()::int AS n FROM provisioner.operations WHERE org_id = $1 AND kind = 'erase'`,
        orgId,
      );
      return now.state === 'running' ? undefined : now;
    });
    expect({ next, ...ended }).toEqual({ next, state: 'succeeded', error: '', n: 1 });
    const { problems, erasure } = await served(() => erasures.verifyErasure({ erasureId }));
    expect({ next, problems }).toEqual({ next, problems: [] });
    const name = `mad_${SCHEMA}_${orgId.replaceAll('-', '')}`;
    expect({ next, ...erasure!.record }).toMatchObject({
      next,
      databases: [`local/${name}`, `local/mad_${SCHEMA}_old_${name.slice(-16)}`],
      roles: [`local/${name}_a`, `local/${name}_b`],
      objects: OBJECTS + 1,
      backups: 1,
      keys: 1,
      rows: { catalog: { things: ROWS }, identity: { things: ROWS } },
    });
  }
  expect([...died].filter(([, times]) => times < KILLS)).toEqual([]);

  // A restore test of the bystander's backup, which begins by itself, has a database as long as it runs.
  await until(async () => ((await mad.objects()).databases.some((name) => name.includes('_copy_')) ? undefined : true));
  // What is left is the bystander's, whole, and the records.
  expect(await mad.objects()).toEqual(kept);
  const left = await mad.rows.query<{ org_id: string }>(
    `SELECT DISTINCT org_id FROM (SELECT org_id FROM provisioner.data_keys UNION ALL
       SELECT org_id FROM provisioner.tenant_credentials UNION ALL SELECT org_id FROM provisioner.cleanup_records UNION ALL
       SELECT org_id FROM provisioner.backups) r`,
  );
  expect(left.rows).toEqual([{ org_id: bystander }]);
  expect(await readdir(join(mad.objectsFolder, 'orgs', bystander, 'artifacts'))).toHaveLength(OBJECTS);
  const states = await mad.rows.query<{ state: string; step: string | null }>(
    'SELECT DISTINCT state, step FROM provisioner.tenants ORDER BY 1',
  );
  expect(states.rows).toEqual([
    { state: 'erased', step: null },
    { state: 'ready', step: null },
  ]);
}, 600_000);
