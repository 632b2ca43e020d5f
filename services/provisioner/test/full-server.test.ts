import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { OperationState, RolloutState, TenantState } from '@mad/proto/provisioner';
import type { RpcServer } from '@mad/rpc';
import pg from 'pg';
import { noteMigrations, serveSchemaOwner } from './neighbours.ts';
import { failure, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';
import { registrationOf, startSecondServer, type SecondServer } from './second-server.ts';

const SCHEMA = 'crowded';
const REGION = 'r-crowded';
const BUDGET = 4;
const RESERVE = 5;
const SUPERUSERS = 3;
/** The test's own session: whoever comes before the tenants takes one of what the server does not reserve. */
const OWN = 1;
const [CREATE, STARS] = noteMigrations(SCHEMA);

let mad: RunningProvisioner;
let owner: RpcServer;
let server: SecondServer;
const sessions: pg.Client[] = [];

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: [CREATE!],
    environment: { PROVISIONER_BACKUP_EVERY_HOURS: '0' },
  });
  owner = mad.owner;
  server = await startSecondServer(mad, 'small', {
    max_connections: String(BUDGET + RESERVE + SUPERUSERS + OWN),
    reserved_connections: String(RESERVE),
    superuser_reserved_connections: String(SUPERUSERS),
  });
}, 120_000);

afterAll(async () => {
  await Promise.all(sessions.map((session) => session.end()));
  await owner?.close();
  await mad?.close();
  await server?.close();
});

test('a server without room for budget and reserve beside what it reserves is refused when it is checked', async () => {
  const limits = { connectionBudget: BUDGET, reservedConnections: RESERVE, check: true };
  const refused = await failure(mad.servers().registerServer({ ...registrationOf(server, REGION), ...limits }));
  expect(refused.rawMessage).toBe(
    `small: it allows ${BUDGET + OWN} connections beside those it reserves, budget and reserve need ${BUDGET + RESERVE}`,
  );
  // Nothing said of the reserve is what it gets when it is registered.
  const silent = { connectionBudget: BUDGET, check: true };
  const again = await failure(mad.servers().registerServer({ ...registrationOf(server, REGION), ...silent }));
  expect(again.rawMessage).toBe(refused.rawMessage);
});

test('where tenants hold every connection but those the server reserves, backups and migrations are made', async () => {
  const limits = { connectionBudget: BUDGET, reservedConnections: RESERVE };
  await mad.servers().registerServer({ ...registrationOf(server, REGION), ...limits });
  const orgId = uuidv7();
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA, region: REGION });
  expect(tenant).toMatchObject({ state: TenantState.READY, lastError: '' });
  const { route } = await mad.routes().getRoute({ orgId, schema: SCHEMA });
  const { host, port, database, user, password } = route!;
  const session = () => new pg.Client({ host, port, database, user, password });

  // Tenants are there first.
  await mad.stop();
  for (;;) {
    const { rows } = await server.admin.query(
      `SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`,
    );
    if (rows.length === 0) break;
    await delay(20);
  }
  while (sessions.length < BUDGET) {
    const next = session();
    await next.connect();
    sessions.push(next);
  }
  const full = { code: '53300', message: expect.stringContaining('pg_use_reserved_connections') };
  await expect(session().connect()).rejects.toMatchObject(full);
  await mad.start();

  const { operation } = await mad.backups().createBackup({ orgId, schema: SCHEMA });
  expect(await mad.ended(operation)).toMatchObject({ state: OperationState.SUCCEEDED, error: '' });

  const at = owner.port;
  await owner.close();
  owner = await serveSchemaOwner(SCHEMA, [CREATE!, STARS!], at);
  // Longer than provisioner remembers the list of migrations.
  await delay(1_100);
  const { rollout } = await mad.rollouts().startRollout({ schema: SCHEMA, requestId: uuidv7() });
  let state = rollout!.state;
  for await (const seen of mad.rollouts().watchRollout({ rolloutId: rollout!.rolloutId })) state = seen.rollout!.state;
  expect(RolloutState[state]).toBe('SUCCEEDED');
  const { rows } = await sessions[0]!.query(`SELECT count(stars)::int AS n FROM ${SCHEMA}.notes`);
  expect(rows).toEqual([{ n: 0 }]);
  await expect(session().connect()).rejects.toMatchObject(full);
}, 120_000);
