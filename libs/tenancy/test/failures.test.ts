import { writeFile, mkdtemp, chmod, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Code } from '@connectrpc/connect';
import { removeEmbeddedPostgres, startEmbeddedPostgres, type EmbeddedPostgres } from '@mad/embedded-postgres';
import { clientOptions } from '@mad/postgres';
import { errorMetadataOf, reasonOf, retryAfterMsOf } from '@mad/rpc';
import { openProxy, type Proxy } from '@mad/testing';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import pg from 'pg';
import { openFleet, type Fleet } from './fleet.ts';
import type { Tenants } from '../src/index.ts';

/** Of the server that is stopped, killed and overfilled: 12 - 3 for superusers - 2 reserved. */
const CAPACITY = 7;
const SETTINGS = {
  fsync: 'off',
  max_connections: '12',
  reserved_connections: '2',
  superuser_reserved_connections: '3',
};
const BREAKER = { threshold: 3, baseMs: 200, maxMs: 400 };

let home: string;
let server: EmbeddedPostgres;
/** Tenants on the server that fails, and on the run's own. */
let fragile: Fleet;
let sound: Fleet;
let proxy: Proxy | undefined;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-failures-'));
  await chmod(home, 0o711);
  server = await startEmbeddedPostgres({ dataDir: join(home, 'postgres'), settings: SETTINGS });
  [fragile, sound] = await Promise.all([openFleet(5, server.adminUrl), openFleet(3)]);
}, 60_000);

afterAll(async () => {
  await proxy?.close();
  await Promise.all([fragile?.close(), sound?.close()]);
  await server?.stop();
  await removeEmbeddedPostgres(join(home, 'postgres'));
  await rm(home, { recursive: true, force: true });
});

beforeEach(async () => {
  if (await Promise.race([server.exited.then(() => true), delay(0, false)])) await restart();
});

async function restart(): Promise<void> {
  server = await startEmbeddedPostgres({ dataDir: join(home, 'postgres'), port: server.port, settings: SETTINGS });
}

/** The superuser on the fragile server, which may have been restarted. */
async function asAdmin<T>(fn: (admin: pg.Client) => Promise<T>): Promise<T> {
  const admin = new pg.Client(clientOptions(server.adminUrl));
  admin.on('error', () => undefined);
  await admin.connect();
  try {
    return await fn(admin);
  } finally {
    await admin.end().catch(() => undefined);
  }
}

const one = (tenants: Tenants, orgId: string, deadlineMs = 5_000): Promise<unknown> =>
  tenants.read(orgId, (tx) => tx.query('SELECT 1 AS one', []), { deadlineMs });

async function failure(promise: Promise<unknown>) {
  const began = performance.now();
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error === undefined) throw new Error('it was expected to fail');
  return {
    code: (error as { code: Code }).code,
    reason: reasonOf(error),
    kind: errorMetadataOf(error)['failure'],
    retryAfterMs: retryAfterMsOf(error),
    ms: performance.now() - began,
  };
}

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  for (let wait = 0; wait < 800; wait += 1) {
    if (await condition()) return;
    await delay(10);
  }
  throw new Error(`waited in vain until ${what}`);
}

const breakerOf = (tenants: Tenants): string | undefined => tenants.status().servers[0]?.breaker;

describe('a server that is killed', () => {
  test('is unavailable at once, holds up no tenant of another, and is used again when it is back', async () => {
    const tenants = await fragile.open({ breaker: BREAKER });
    const others = await sound.open();
    const [a, b] = fragile.orgs as [string, string];
    await Promise.all([one(tenants, a), one(others, sound.orgs[0]!)]);
    process.kill(server.pid, 'SIGKILL');
    await server.exited;

    const first = await failure(one(tenants, b));
    expect(first).toMatchObject({ code: Code.Unavailable, reason: 'DATABASE_UNAVAILABLE', kind: 'network' });
    await until(async () => {
      await failure(one(tenants, b));
      return breakerOf(tenants) === 'open';
    }, 'the breaker opens');
    // Many at once: none of them waits for the server, and the other server's do as always.
    const refused = await Promise.all(Array.from({ length: 50 }, () => failure(one(tenants, b))));
    for (const each of refused) {
      expect(each).toMatchObject({ code: Code.Unavailable, reason: 'DATABASE_UNAVAILABLE' });
      expect(each.ms).toBeLessThan(500);
      expect(each.retryAfterMs).toBeGreaterThan(0);
    }
    expect(await one(others, sound.orgs[0]!)).toEqual([{ one: 1 }]);
    await restart();
    await until(() => one(tenants, b).then(Boolean, () => false), 'it is served again');
    expect(breakerOf(tenants)).toBe('closed');
    expect(await one(tenants, a)).toEqual([{ one: 1 }]);
    await Promise.all([tenants.close(), others.close()]);
  }, 60_000);

  test('that shuts down takes no new connection and lets open ones work', async () => {
    const tenants = await fragile.open({ breaker: BREAKER });
    const [a, b] = fragile.orgs as [string, string];
    const release = Promise.withResolvers<void>();
    const working = tenants.transact(a, async (tx) => {
      await release.promise;
      return tx.execute(`INSERT INTO notes (body) VALUES ('late')`);
    });
    await until(() => tenants.status().servers[0]?.open === 1, 'it works');
    // "Smart": waits for the sessions there are.
    process.kill(server.pid, 'SIGTERM');
    await delay(200);
    for (let n = 0; n < BREAKER.threshold; n += 1) {
      const refused = await failure(one(tenants, b));
      expect(refused).toMatchObject({ code: Code.Unavailable, reason: 'DATABASE_UNAVAILABLE', kind: 'starting' });
    }
    expect(breakerOf(tenants)).toBe('open');
    release.resolve();
    expect(await working).toBe(1);
    // Its connection is open and idle: a hit needs no new one.
    expect(await one(tenants, a)).toEqual([{ one: 1 }]);
    await tenants.close();
    await server.exited;
  }, 60_000);
});

describe('a server that is full', () => {
  test('is never asked for more than it holds less its reserve', async () => {
    const tenants = await fragile.open({ budget: 50 });
    await one(tenants, fragile.orgs[0]!);
    expect(tenants.status().servers).toMatchObject([{ limit: CAPACITY, answers: true }]);
    const sleep = (orgId: string): Promise<unknown> =>
      tenants.read(orgId, (tx) => tx.query('SELECT pg_sleep(0.05)'), { deadlineMs: 20_000 });
    await Promise.all(Array.from({ length: 40 }, (_, n) => sleep(fragile.orgs[n % 5]!)));
    expect(tenants.status().servers[0]!.open).toBeLessThanOrEqual(CAPACITY);
    await tenants.close();
  }, 60_000);

  test('by others says RESOURCE_EXHAUSTED and when to come again, then its breaker opens', async () => {
    const tenants = await fragile.open({ breaker: BREAKER });
    await asAdmin((admin) => admin.query(`CREATE ROLE hog LOGIN PASSWORD 'hog'`));
    const hogs: pg.Client[] = [];
    for (;;) {
      const hog = new pg.Client({ ...clientOptions(server.adminUrl), user: 'hog', password: 'hog' });
      hog.on('error', () => undefined);
      if (
        !(await hog.connect().then(
          () => true,
          () => false,
        ))
      )
        break;
      hogs.push(hog);
    }
    const refused = await failure(one(tenants, fragile.orgs[0]!));
    expect(refused).toMatchObject({
      code: Code.ResourceExhausted,
      reason: 'CONNECTION_BUDGET_EXHAUSTED',
      kind: 'crowded',
    });
    expect(refused.retryAfterMs).toBeGreaterThan(0);
    for (let n = 1; n < BREAKER.threshold; n += 1) await failure(one(tenants, fragile.orgs[0]!));
    expect(breakerOf(tenants)).toBe('open');
    await Promise.all(hogs.map((hog) => hog.end()));
    await until(() => one(tenants, fragile.orgs[0]!).then(Boolean, () => false), 'it is served again');
    await tenants.close();
  }, 60_000);

  test('for one login alone is that tenant’s trouble', async () => {
    const tenants = await fragile.open({ breaker: BREAKER });
    const [a, b] = fragile.orgs as [string, string];
    const role = fragile.route(a).user;
    await asAdmin((admin) => admin.query(`ALTER ROLE ${role} CONNECTION LIMIT 0`));
    for (let n = 0; n < 2 * BREAKER.threshold; n += 1) {
      expect(await failure(one(tenants, a))).toMatchObject({ code: Code.ResourceExhausted, kind: 'limited' });
    }
    expect(breakerOf(tenants)).toBe('closed');
    expect(await one(tenants, b)).toEqual([{ one: 1 }]);
    await asAdmin((admin) => admin.query(`ALTER ROLE ${role} CONNECTION LIMIT -1`));
    expect(await one(tenants, a)).toEqual([{ one: 1 }]);
    await tenants.close();
  });
});

describe('a route that is old', () => {
  /** The change is silent: no news of it comes by the change log. */
  const silently = (orgId: string, change: object): void => void Object.assign(sound.route(orgId), change);

  test('because the password changed is asked for once, and the request served', async () => {
    const tenants = await sound.open();
    const orgId = sound.orgs[0]!;
    await one(tenants, orgId);
    const { user, database } = sound.route(orgId);
    await sound.admin.query(`ALTER ROLE ${user} PASSWORD 'another one'`);
    await sound.admin.query('SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1', [
      database,
    ]);
    await until(() => tenants.status().servers[0]?.open === 0, 'the loss is noticed');
    const before = sound.asked;
    expect(await failure(one(tenants, orgId))).toMatchObject({ code: Code.Unavailable, kind: 'login' });
    expect(sound.asked - before).toBe(1);
    silently(orgId, { password: 'another one' });
    expect(await one(tenants, orgId)).toEqual([{ one: 1 }]);
    expect(breakerOf(tenants)).toBe('closed');
    await tenants.close();
  });

  test('because the database was renamed is asked for once, and the request served', async () => {
    const tenants = await sound.open({ breaker: BREAKER });
    const orgId = sound.orgs[1]!;
    const { database } = sound.route(orgId);
    const other = `${database}_b`;
    await one(tenants, orgId);
    await sound.admin.query('SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1', [
      database,
    ]);
    await sound.admin.query(`ALTER DATABASE ${database} RENAME TO ${other}`);
    await until(() => tenants.status().servers[0]?.open === 0, 'the loss is noticed');
    for (let n = 0; n < 2 * BREAKER.threshold; n += 1) {
      const refused = await failure(one(tenants, orgId));
      expect(refused).toMatchObject({ code: Code.Unavailable, kind: 'database_gone' });
    }
    expect(breakerOf(tenants)).toBe('closed');
    const { generation } = sound.route(orgId);
    silently(orgId, { database: other, generation: generation + 1n });
    const read = tenants.read(orgId, (tx) => tx.query('SELECT current_database() AS name', []));
    expect(await read).toEqual([{ name: other }]);
    await tenants.close();
    await sound.admin.query(`ALTER DATABASE ${other} RENAME TO ${database}`);
    silently(orgId, { database });
  });

  test('because the server became a standby leads a writer to the new primary in the same call', async () => {
    await server.stop();
    await writeFile(join(home, 'postgres', 'data', 'standby.signal'), '');
    await restart();
    const orgId = fragile.orgs[4]!;
    try {
      const tenants = await fragile.open();
      const write = (): Promise<number> =>
        tenants.transact(orgId, (tx) => tx.execute(`INSERT INTO notes (body) VALUES ('after')`));
      expect(await one(tenants, orgId)).toEqual([{ one: 1 }]);
      expect(await failure(write())).toMatchObject({ code: Code.Unavailable, kind: 'read_only' });
      // Its place on the new primary; the log has not told yet.
      const { host, port, sslmode, database, user, password } = sound.route(sound.orgs[2]!);
      const { generation } = fragile.route(orgId);
      Object.assign(fragile.route(orgId), {
        host,
        port,
        sslmode,
        database,
        user,
        password,
        generation: generation + 1n,
      });
      expect(await write()).toBe(1);
      await tenants.close();
    } finally {
      await server.stop();
      await rm(join(home, 'postgres', 'data', 'standby.signal'));
      await restart();
    }
  }, 60_000);
});

describe('a network', () => {
  test('that swallows everything is told from a full house, within the caller’s time', async () => {
    proxy = await openProxy({ host: '127.0.0.1', port: server.port });
    const orgId = fragile.orgs[0]!;
    const { port, generation } = fragile.route(orgId);
    Object.assign(fragile.route(orgId), { port: proxy.port, generation: generation + 1n });
    proxy.silent = true;
    const tenants = await fragile.open();
    const refused = await failure(one(tenants, orgId, 300));
    expect(refused).toMatchObject({ code: Code.Unavailable, reason: 'DATABASE_UNAVAILABLE' });
    expect(refused.ms).toBeLessThan(2_000);
    proxy.silent = false;
    await until(() => one(tenants, orgId).then(Boolean, () => false), 'it is served');
    proxy.break({ kind: 'cut', afterBytes: 1 });
    const cut = await failure(one(tenants, orgId));
    expect(cut).toMatchObject({ code: Code.Unavailable, reason: 'DATABASE_UNAVAILABLE', kind: 'network' });
    expect(await one(tenants, orgId)).toEqual([{ one: 1 }]);
    await tenants.close();
    Object.assign(fragile.route(orgId), { port, generation: generation + 2n });
  }, 60_000);
});
