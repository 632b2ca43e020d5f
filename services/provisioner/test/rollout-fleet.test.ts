import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { removeEmbeddedPostgres, startEmbeddedPostgres, type EmbeddedPostgres } from '@mad/embedded-postgres';
import { bootstrapTenantServer, clientOptions, defineMigration } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import {
  RolloutRulesSchema,
  RolloutRunState,
  RolloutState,
  type Rollout,
  type RolloutRun,
  type TenantDrift,
} from '@mad/proto/provisioner';
import type { RpcServer } from '@mad/rpc';
import { testCluster } from '@mad/testing';
import pg from 'pg';
import { databaseName } from '../src/domain/names.ts';
import { noteMigrations, serveSchemaOwner } from './neighbours.ts';
import { runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

// A fleet on two servers. MAD_FLEET=500 runs the same with so many tenants, and says how long each part took.

const SCHEMA = 'fleetroll';
const FLEET = Number(process.env['MAD_FLEET'] ?? 16);
const LIMIT = 120_000 + FLEET * 4_000;
const MAKING = 4;
const OLD = noteMigrations(SCHEMA);
const positive = defineMigration('2026_01_08_1000_positive_stars.ts', {
  up: `ALTER TABLE ${SCHEMA}.notes ADD CONSTRAINT notes_stars_check CHECK (stars >= 0)`,
  down: `ALTER TABLE ${SCHEMA}.notes DROP CONSTRAINT notes_stars_check`,
});
const NEW = [...OLD, positive];

let mad: RunningProvisioner;
let owner: RpcServer;
let second: EmbeddedPostgres;
let dataDir: string;
let orgs: string[];
/** The superuser's address of each database. */
const urls = new Map<string, string>();

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA, migrations: OLD });
  owner = mad.owner;
  dataDir = join(await mkdtemp(join(tmpdir(), 'mad-fleet-')), 'data');
  second = await startEmbeddedPostgres({ dataDir, settings: { fsync: 'off', max_connections: '100' } });
  const passwords = { provisionerPassword: 'a-password-of-tests', migratorPassword: 'another-one-of-tests' };
  await bootstrapTenantServer(second.adminUrl, { ...passwords, schema: SCHEMA });
  await mad.servers().registerServer({
    name: 'second',
    host: '127.0.0.1',
    port: second.port,
    region: 'local',
    connectionBudget: 20,
    ...passwords,
  });
  orgs = Array.from({ length: FLEET }, () => uuidv7()).toSorted();
  const rest = [...orgs];
  await said('made', async () => {
    await Promise.all(
      Array.from({ length: MAKING }, async () => {
        for (let orgId = rest.pop(); orgId !== undefined; orgId = rest.pop()) {
          await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
        }
      }),
    );
  });
  const { rows } = await mad.rows.query<{ org_id: string; name: string }>(
    'SELECT t.org_id, s.name FROM provisioner.tenants t JOIN provisioner.database_servers s USING (server_id)',
  );
  for (const { org_id: orgId, name } of rows) {
    const url = new URL(name === 'second' ? second.adminUrl : testCluster().adminUrl);
    url.pathname = `/${databaseName(SCHEMA, orgId)}`;
    urls.set(orgId, url.href);
  }
}, LIMIT);

afterAll(async () => {
  await owner?.close();
  await mad?.close();
  await second?.stop();
  if (dataDir !== undefined) await removeEmbeddedPostgres(dataDir);
}, LIMIT);

/** Does something, and says how long it took where somebody asked for a fleet of a size. */
async function said<T>(what: string, fn: () => Promise<T>): Promise<T> {
  const began = performance.now();
  const answer = await fn();
  const ms = performance.now() - began;
  if (process.env['MAD_FLEET'] !== undefined) {
    process.stderr.write(`${FLEET} ${what}: ${(ms / 1_000).toFixed(1)} s, ${((FLEET / ms) * 1_000).toFixed(1)}/s\n`);
  }
  return answer;
}

async function inside<R extends pg.QueryResultRow>(orgId: string, sql: string): Promise<R[]> {
  const client = new pg.Client(clientOptions(urls.get(orgId)!));
  await client.connect();
  try {
    return (await client.query<R>(sql)).rows;
  } finally {
    await client.end();
  }
}

const poison = (orgId: string) => inside(orgId, `INSERT INTO ${SCHEMA}.notes (body, stars) VALUES ('bad', -1)`);
const heal = (orgId: string) => inside(orgId, `UPDATE ${SCHEMA}.notes SET stars = 0 WHERE stars < 0`);

async function standing(rolloutId: string): Promise<Rollout> {
  let last: Rollout | undefined;
  for await (const { rollout } of mad.rollouts().watchRollout({ rolloutId })) last = rollout;
  return last!;
}

async function start(): Promise<Rollout> {
  const rules = create(RolloutRulesSchema, { canaries: 5 });
  const { rollout } = await mad.rollouts().startRollout({ schema: SCHEMA, requestId: uuidv7(), rules });
  return standing(rollout!.rolloutId);
}

async function failedOf(rolloutId: string): Promise<RolloutRun[]> {
  return (await mad.rollouts().listRolloutRuns({ rolloutId, state: RolloutRunState.FAILED })).runs;
}

async function sweep(): Promise<TenantDrift[]> {
  const found: TenantDrift[] = [];
  for (let pageToken = ''; ;) {
    const page = await mad.drift().listDrift({ pageToken });
    found.push(...page.tenants);
    if (page.nextPageToken === '') return found;
    pageToken = page.nextPageToken;
  }
}

/** By version, how many databases have it. */
async function versions(): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const orgId of orgs) {
    const [row] = await inside<{ name: string }>(
      orgId,
      `SELECT name FROM ${SCHEMA}.migrations ORDER BY "timestamp" DESC LIMIT 1`,
    );
    counts[row!.name] = (counts[row!.name] ?? 0) + 1;
  }
  return counts;
}

test(
  'one index dropped by hand is found and named by one sweep of both servers',
  async () => {
    expect(new Set([...urls.values()].map((url) => new URL(url).port)).size).toBe(2);
    // A first sweep makes what databases are compared with.
    await sweep();
    const victim = orgs[Math.floor(FLEET / 2)]!;
    await inside(victim, `ALTER TABLE ${SCHEMA}.notes DROP CONSTRAINT notes_pkey`);
    const found = await said('looked at for drift', sweep);
    expect(found).toHaveLength(FLEET);
    expect(found.filter(({ error }) => error !== '')).toEqual([]);
    expect(
      found.flatMap(({ orgId, differences }) => differences.map(({ kind, name }) => `${orgId} ${kind} ${name}`)),
    ).toEqual([`${victim} constraint notes.notes_pkey`, `${victim} index notes_pkey`]);
    const key = { orgId: victim, schema: SCHEMA };
    const { planDigest } = await mad.drift().planRepair(key);
    await mad.drift().repairTenant({ ...key, planDigest });
    while ((await mad.drift().listDrift({ orgId: victim })).tenants[0]!.differences.length > 0) await delay(50);
  },
  LIMIT,
);

test(
  'three poisoned tenants halt a rollout among the canaries; elsewhere the rest is finished, the three are named, and a resume after repair finishes them',
  async () => {
    const { port } = owner;
    await owner.close();
    owner = await serveSchemaOwner(SCHEMA, NEW, port);
    await delay(1_100);
    const [old, now] = [OLD.at(-1)!.migrationName, positive.migrationName];

    const canaries = orgs.slice(0, 3);
    for (const orgId of canaries) await poison(orgId);
    const halted = await start();
    expect(halted).toMatchObject({ state: RolloutState.HALTED, wave: 1 });
    expect(halted.reason).toContain('among the canaries');
    expect((await failedOf(halted.rolloutId)).every(({ orgId }) => canaries.includes(orgId))).toBe(true);
    for (const orgId of canaries) await heal(orgId);
    await mad.rollouts().abortRollout({ rolloutId: halted.rolloutId });

    const bad = [FLEET - 8, FLEET - 5, FLEET - 2].map((n) => orgs[n]!);
    for (const orgId of bad) await poison(orgId);
    const done = await said('rolled out', start);
    expect(done).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { succeeded: FLEET - 3, failed: 3 } });
    const failed = await failedOf(done.rolloutId);
    expect(failed.map(({ orgId }) => orgId)).toEqual(bad);
    for (const { error } of failed) expect(error).toContain('notes_stars_check');
    expect(await versions()).toEqual({ [now]: FLEET - 3, [old]: 3 });

    for (const orgId of bad) await heal(orgId);
    await mad.rollouts().resumeRollout({ rolloutId: done.rolloutId });
    expect(await standing(done.rolloutId)).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { failed: 0 } });
    expect(await versions()).toEqual({ [now]: FLEET });

    const nothing = await said('looked at with nothing to do', start);
    expect(nothing).toMatchObject({ state: RolloutState.SUCCEEDED, counts: { succeeded: FLEET } });
    expect((await sweep()).flatMap(({ differences }) => differences)).toEqual([]);
  },
  LIMIT,
);
