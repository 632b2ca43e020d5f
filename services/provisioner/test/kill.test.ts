import { setTimeout as delay } from 'node:timers/promises';
import { createClient } from '@connectrpc/connect';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { TenantService, TenantState } from '@mad/proto/provisioner';
import type { GrpcTransport } from '@mad/rpc';
import { ServiceProcess, serviceToken, START_MS } from '@mad/testing';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'kill';
/** After the template was made; before that, the first tenant's kills are about the template. */
const STEPS = ['create_database', 'admit_logins', 'verify'];
const MAX_ROUNDS = 40;
const STOCK = 1;

let mad: RunningProvisioner;
let provisioner: ServiceProcess;
let transport: GrpcTransport;

// Each attempt at the test has its own: what a failed one left is not counted.
beforeEach(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    idle: true,
    environment: {
      PROVISIONER_STEP_LEASE_MS: '500',
      PROVISIONER_SWEEP_MS: '100',
      PROVISIONER_CLEANUP_GRACE_MS: '0',
      // Some tenants move into a clone that waited, some are cloned, and the keeper dies in the middle of its work too.
      PROVISIONER_STOCK_SIZE: String(STOCK),
      PROVISIONER_STOCK_PER_MINUTE: '6000',
    },
  });
  provisioner = await ServiceProcess.of('provisioner', mad.environment);
  transport = provisioner.as(() => serviceToken('identity'));
});

afterEach(async () => {
  await provisioner?.close();
  await mad?.close();
});

/** Asks until somebody serves; then lets the work go on by itself. */
async function ask(orgId: string): Promise<void> {
  const client = createClient(TenantService, transport);
  for (const until = performance.now() + START_MS; performance.now() < until;) {
    const { rowCount } = await mad.rows.query('SELECT FROM provisioner.tenants WHERE org_id = $1', [orgId]);
    if (rowCount === 1) return;
    void client.ensureTenant({ orgId, schema: SCHEMA }, { timeoutMs: 1_000 }).catch(() => undefined);
    await delay(5);
  }
  throw new Error('provisioner does not serve');
}

async function settled(): Promise<void> {
  for (let wait = 0; wait < 1_000; wait += 1) {
    const { rows } = await mad.rows.query<{ left: number }>(
      `SELECT (SELECT count(*) FROM provisioner.tenants WHERE state <> 'ready' OR step IS NOT NULL)::int
         + (SELECT count(*) FROM provisioner.cleanup_records)::int
         + (SELECT count(*) FROM provisioner.tenant_stock WHERE state <> 'ready')::int
         + (SELECT abs(count(*) - $1) FROM provisioner.tenant_stock)::int AS left`,
      [STOCK],
    );
    if (rows[0]!.left === 0) return;
    await delay(20);
  }
  const { rows } = await mad.rows.query('SELECT org_id, state, step, last_error FROM provisioner.tenants');
  throw new Error(`not settled: ${JSON.stringify(rows)}`);
}

/**
 * Lets the process work on the tenant up to a step, holds its row so that the step cannot be noted as done, and kills
 * the process there. Returns the step it died at; undefined when it was too fast.
 */
async function killAt(orgId: string, step: string): Promise<string | undefined> {
  for (;;) {
    const { rows } = await mad.rows.query<{ step: string | null; state: string }>(
      'SELECT step, state FROM provisioner.tenants WHERE org_id = $1',
      [orgId],
    );
    if (rows[0]?.state === 'ready') return undefined;
    if (rows[0]?.step === step) break;
  }
  await mad.rows.query('BEGIN');
  const { rows } = await mad.rows.query<{ step: string | null }>(
    'SELECT step FROM provisioner.tenants WHERE org_id = $1 FOR UPDATE',
    [orgId],
  );
  // Time for what the step does on the server, in full or in part.
  await delay(Math.random() * 25);
  await provisioner.kill();
  await mad.rows.query('ROLLBACK');
  return rows[0]?.step ?? undefined;
}

test('kill -9 in every step, and again at the same step: every tenant ends up ready, and nothing is orphaned', async () => {
  const orgs: string[] = [];
  const diedAt = new Map<string, number>();
  let draftKilled = false;
  provisioner.start();
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const wanted = STEPS.find((step) => (diedAt.get(step) ?? 0) < 2);
    if (wanted === undefined && draftKilled) break;
    const orgId = uuidv7();
    orgs.push(orgId);
    await ask(orgId);
    if (!draftKilled) {
      // The first tenant's template is being made: killed with the draft in place.
      for (let wait = 0; wait < 2_000; wait += 1) {
        const { rowCount } = await mad.admin.query('SELECT FROM pg_database WHERE datname LIKE $1', [
          `mad\\_${SCHEMA}\\_template%\\_draft`,
        ]);
        if (rowCount === 1) break;
      }
      await provisioner.kill();
      draftKilled = true;
      provisioner.start();
      continue;
    }
    // Twice for one tenant: whoever resumes it dies at the same place.
    for (let again = 0; again < 2; again += 1) {
      const step = await killAt(orgId, wanted!);
      // One that was killed in no step is missed as well.
      provisioner.start();
      if (step === undefined) break;
      diedAt.set(step, (diedAt.get(step) ?? 0) + 1);
    }
  }
  expect(STEPS.filter((step) => (diedAt.get(step) ?? 0) < 2)).toEqual([]);
  expect(draftKilled).toBe(true);
  await settled();

  const { rows } = await mad.rows.query<{ database: string; roles: string[] }>(
    `SELECT database_name AS database, (SELECT array_agg(role_name) FROM provisioner.tenant_credentials c
       WHERE c.org_id = t.org_id AND c.schema = t.schema) AS roles FROM provisioner.tenants t`,
  );
  expect(rows).toHaveLength(orgs.length);
  const { databases, roles } = await mad.objects();
  expect(databases).toEqual(rows.map(({ database }) => database).sort());
  expect(roles).toEqual(rows.flatMap((row) => row.roles).sort());

  // The clones that wait are those that are noted.
  const stock = await mad.rows.query<{ name: string }>(
    'SELECT database_name AS name FROM provisioner.tenant_stock ORDER BY 1',
  );
  const clones = await mad.admin.query<{ name: string }>(
    'SELECT datname AS name FROM pg_database WHERE datname LIKE $1 ORDER BY 1',
    [`mad\\_${SCHEMA}\\_stock\\_%`],
  );
  expect(clones.rows).toEqual(stock.rows);

  // Each was made by one operation, and its readiness was announced once.
  const counts = await mad.rows.query<{ operations: number; changes: number }>(
    `SELECT (SELECT count(*) FROM provisioner.operations o WHERE o.org_id = t.org_id) AS operations,
       (SELECT count(*) FROM provisioner.tenant_changes c WHERE c.org_id = t.org_id AND c.state = 'ready') AS changes
     FROM provisioner.tenants t`,
  );
  for (const each of counts.rows) expect(each).toEqual({ operations: 1, changes: 1 });
  const client = createClient(TenantService, transport);
  for (const orgId of orgs) {
    const { tenant } = await client.ensureTenant({ orgId, schema: SCHEMA });
    expect(tenant!.state).toBe(TenantState.READY);
  }
}, 180_000);
