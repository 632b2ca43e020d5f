import { createClient, type Client } from '@connectrpc/connect';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { MoveMode, TenantService, TenantState } from '@mad/proto/provisioner';
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
import { noWayBack, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';
import { registrationOf, startSecondServer, type SecondServer } from './second-server.ts';

const SCHEMA = 'mkill';
const KILLS = 2;
const MAX_ROUNDS = 60;

let mad: RunningProvisioner;
let second: SecondServer;
let provisioner: ServiceProcess;

beforeEach(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: archivedMigrations(SCHEMA),
    idle: true,
    environment: { ...KILL_SETTINGS },
  });
  second = await startSecondServer(mad, 'second');
  const { name, host, port, ...rest } = registrationOf(second);
  const local = JSON.parse(mad.environment['PROVISIONER_SERVERS']!) as object[];
  mad.environment['PROVISIONER_SERVERS'] = JSON.stringify([
    ...local,
    {
      name,
      host,
      port,
      region: rest.region,
      connection_budget: rest.connectionBudget,
      provisioner_password: rest.provisionerPassword,
      migrator_password: rest.migratorPassword,
    },
  ]);
  provisioner = await ServiceProcess.of('provisioner', mad.environment);
}, 120_000);

afterEach(async () => {
  await provisioner?.close();
  await mad?.close();
  await second?.close();
});

const one = async <R extends pg.QueryResultRow>(sql: string, ...values: unknown[]): Promise<R> =>
  (await oneRow<R>(mad.rows, sql, ...values))!;

/** Kills the process at a step it cannot note as done; false when it was too fast. */
const killAt = async (operationId: string, step: string): Promise<boolean> =>
  step === (await killAtStep({ rows: mad.rows, operationId, step, withinMs: 150, kill: () => provisioner.kill() }));

const ended = (operationId: string) => operationEnded(mad.rows, operationId);

const serverOf = async (): Promise<string> => {
  const { name } = await one<{ name: string }>(
    'SELECT s.name FROM provisioner.tenants t JOIN provisioner.database_servers s USING (server_id)',
  );
  return name;
};

const MODES = [
  ['move', MoveMode.OFFLINE, test, ''],
  ['move_online', MoveMode.ONLINE, noWayBack === '' ? test : test.skip, noWayBack],
] as const;

for (const [kind, mode, testIf, why] of MODES) {
  testIf(
    `kill -9 in every step of ${kind}: it ends moved, every row once, nothing orphaned${why}`,
    async () => {
      provisioner.start();
      const orgId = uuidv7();
      const tenants = createClient(
        TenantService,
        provisioner.as(() => serviceToken('identity')),
      );
      const platform: Client<typeof TenantService> = createClient(
        TenantService,
        provisioner.as(() => platformToken({ permissions: ['platform.tenants.move'] })),
      );
      const { tenant } = await served(() => tenants.ensureTenant({ orgId, schema: SCHEMA }));
      expect(tenant!.state).toBe(TenantState.READY);
      const database = tenant!.databaseName;
      const urlOn = (server: string): string =>
        server === 'local' ? testCluster().adminUrlTo(database) : second.adminUrlTo(database);
      const inside = async <T>(fn: (client: pg.Client) => Promise<T>): Promise<T> => {
        const client = new pg.Client(clientOptions(urlOn(await serverOf())));
        await client.connect();
        try {
          return await fn(client);
        } finally {
          await client.end();
        }
      };
      await inside((client) => fill(client, SCHEMA, 1_500));
      const before = await inside((client) => contentOf(client, SCHEMA));

      const begin = (server: string): Promise<string> =>
        served(async () => {
          // An answer that was lost has begun one all the same.
          const running = await one<{ operation_id: string }>(
            `SELECT operation_id FROM provisioner.operations WHERE kind = $1 AND state = 'running'`,
            kind,
          );
          if (running !== undefined) return running.operation_id;
          const request = { orgId, schema: SCHEMA, server, mode, keepHours: 0 };
          const { operation } = await platform.moveTenant(request, { timeoutMs: 5_000 });
          return operation!.operationId;
        });

      const died = new Map(PLANS[kind].steps.map((step) => [step, 0]));
      for (let round = 0; round < MAX_ROUNDS; round += 1) {
        const next = PLANS[kind].steps.find((step) => died.get(step)! < KILLS);
        if (next === undefined) break;
        const to = (await serverOf()) === 'local' ? 'second' : 'local';
        const operationId = await begin(to);
        // Twice in one operation: whoever resumes it dies at the same place.
        for (let again = 0; again < KILLS; again += 1) {
          const step = await killAt(operationId, next);
          // One that was killed in no step is missed as well.
          provisioner.start();
          if (step === undefined) break;
          died.set(next, died.get(next)! + 1);
        }
        expect({ next, ...(await ended(operationId)) }).toEqual({ next, state: 'succeeded', error: '' });
        expect(await serverOf()).toBe(to);
        expect(await inside((client) => contentOf(client, SCHEMA))).toEqual(before);
      }
      expect([...died].filter(([, times]) => times < KILLS)).toEqual([]);

      // Swept clean on both servers: databases, logins, slots, subscriptions.
      await sweptClean(mad.rows);
      const here = await serverOf();
      const [first, other] = [await mad.objects(), await second.objects()];
      const full = { databases: [database], roles: [`${database}_a`, `${database}_b`] };
      const logins = ({ databases, roles }: typeof first) => ({
        databases,
        roles: roles.filter((name) => !name.endsWith('_reader')),
      });
      const empty = { databases: [], roles: [] };
      expect(logins(first)).toEqual(here === 'local' ? full : empty);
      expect(logins(other)).toEqual(here === 'local' ? empty : full);
      for (const admin of [mad.admin, second.admin]) {
        expect((await admin.query('SELECT FROM pg_replication_slots')).rowCount).toBe(0);
        expect((await admin.query('SELECT FROM pg_subscription')).rowCount).toBe(0);
      }
      const { state, step } = await one<{ state: string; step: string | null }>(
        'SELECT state, step FROM provisioner.tenants',
      );
      expect({ state, step }).toEqual({ state: 'ready', step: null });
    },
    900_000,
  );
}
