import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { testCluster } from '@mad/testing';
import pg from 'pg';
import { largest } from '../src/domain/largest.ts';
import { databaseName } from '../src/domain/names.ts';
import { inside, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'crowd';
const TENANTS = 30;
const TOP = 5;
const WAIT_MS = 60_000;

let mad: RunningProvisioner;
let orgs: string[];
const sessions = new Map<string, pg.Client[]>();

beforeAll(async () => {
  const environment = {
    PROVISIONER_TOP_TENANTS: String(TOP),
    PROVISIONER_SERVER_SAMPLE_MS: '200',
    PROVISIONER_BACKUP_EVERY_HOURS: '0',
  };
  mad = await runProvisioner({ schema: SCHEMA, environment, metrics: true });
  orgs = Array.from({ length: TENANTS }, () => uuidv7());
  const queue = [...orgs];
  const worker = async (): Promise<void> => {
    for (let orgId = queue.pop(); orgId !== undefined; orgId = queue.pop()) {
      await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    }
  };
  await Promise.all([worker(), worker(), worker()]);
}, 120_000);

afterAll(async () => {
  for (const held of sessions.values()) await Promise.all(held.map((session) => session.end()));
  await mad?.close();
});

/** A metric's series: values by organization. */
async function series(name: string): Promise<Map<string, number>> {
  const text = await mad.metricsText();
  const lines = [...text.matchAll(new RegExp(`^${name}{.*org_id="([^"]+)".*} (.+)$`, 'gm'))];
  return new Map(lines.map(([, orgId, value]) => [orgId!, Number(value)]));
}

/** The series when they are as wanted; the last ones in time otherwise, for the test to show. */
async function settled(name: string, wanted: (found: Map<string, number>) => boolean): Promise<Map<string, number>> {
  for (const until = performance.now() + WAIT_MS; ; await delay(50)) {
    const found = await series(name);
    if (wanted(found) || performance.now() > until) return found;
  }
}

const sum = (values: Iterable<number>): number => [...values].reduce((all, one) => all + one, 0);

async function hold(orgId: string, count: number): Promise<void> {
  const held = sessions.get(orgId) ?? [];
  sessions.set(orgId, held);
  await Promise.all(held.splice(count).map((session) => session.end()));
  while (held.length < count) {
    const session = new pg.Client(clientOptions(testCluster().adminUrlTo(databaseName(SCHEMA, orgId))));
    await session.connect();
    held.push(session);
  }
}

test('of thirty organizations the five with the most sessions have a series each, and all others one; who falls out has none', async () => {
  // 7, 6, … 1 sessions; all others have none.
  for (const [index, orgId] of orgs.slice(0, 7).entries()) await hold(orgId, 7 - index);
  const wanted = [...orgs.slice(0, TOP).map((orgId, index) => [orgId, 7 - index]), ['other', 2 + 1]];
  // A look may fall between two sessions.
  const found = await settled('tenant_top_sessions', (now) => isDeepStrictEqual([...now], wanted));
  expect([...found]).toEqual(wanted);
  const { rows } = await mad.admin.query<{ n: number }>(
    'SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = ANY ($1)',
    [orgs.map((orgId) => databaseName(SCHEMA, orgId))],
  );
  expect(sum(found.values())).toBe(rows[0]!.n);

  await hold(orgs[0]!, 0);
  const left = [...orgs.slice(1, TOP + 1).map((orgId, index) => [orgId, 6 - index]), ['other', 1]];
  const later = await settled('tenant_top_sessions', (now) => isDeepStrictEqual([...now], left));
  expect([...later]).toEqual(left);
}, 120_000);

test('the busiest is seen while it works, and who is done with it is not', async () => {
  const busy = orgs.at(-1)!;
  let working = true;
  const work = inside(databaseName(SCHEMA, busy), async (client) => {
    while (working) await client.query('SELECT pg_sleep(0.05)');
  });
  const found = await settled('tenant_top_load', (now) => (now.get(busy) ?? 0) > 0.5);
  expect(found.get(busy)).toBeGreaterThan(0.5);
  expect(found.size).toBeLessThanOrEqual(TOP + 1);
  working = false;
  await work;
  expect((await settled('tenant_top_load', (now) => (now.get(busy) ?? 0) < 0.01)).get(busy) ?? 0).toBeLessThan(0.01);
}, 120_000);

test('sizes are those of the servers: the largest by name, and the sum of all is the total', async () => {
  for (const [index, orgId] of orgs.slice(10, 16).entries()) {
    await inside(databaseName(SCHEMA, orgId), (client) =>
      client.query(`CREATE TABLE ${SCHEMA}.ballast AS SELECT repeat('x', 900) AS x FROM generate_series(1, $1::int)`, [
        (6 - index) * 1_000,
      ]),
    );
  }
  // A new process measures at its first look.
  await mad.stop();
  await mad.start();
  const found = await settled('tenant_top_size_bytes', (now) => now.size > 1);
  expect([...found.keys()]).toEqual([...orgs.slice(10, 10 + TOP), 'other']);
  const { rows } = await mad.admin.query<{ bytes: number }>(
    'SELECT sum(pg_database_size(oid))::float8 AS bytes FROM pg_database WHERE datname = ANY ($1)',
    [orgs.map((orgId) => databaseName(SCHEMA, orgId))],
  );
  // What is written meanwhile in the background, a free space map say, is small beside it.
  expect(Math.abs(sum(found.values()) / rows[0]!.bytes - 1)).toBeLessThan(0.01);
}, 120_000);

test('whatever there is, at most so many are named, none smaller than one that is not, and nothing is lost', () => {
  const values = fc.dictionary(fc.uuid(), fc.nat(1_000)).map((found) => new Map(Object.entries(found)));
  fc.assert(
    fc.property(values, fc.nat(40), (all, count) => {
      const { top, other } = largest(all, count);
      expect(top.length).toBeLessThanOrEqual(count);
      expect(sum(top.map(([, value]) => value)) + other).toBe(sum(all.values()));
      const named = new Set(top.map(([name]) => name));
      const least = top.at(-1)?.[1] ?? Infinity;
      for (const [name, value] of all) {
        if (named.has(name)) expect(value).toBeGreaterThan(0);
        else if (count > 0) expect(value).toBeLessThanOrEqual(top.length < count ? 0 : least);
      }
    }),
  );
});
