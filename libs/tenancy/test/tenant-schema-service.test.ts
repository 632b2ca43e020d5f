import { randomBytes } from 'node:crypto';
import { Code, createClient, type Client } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { clientOptions, defineMigration } from '@mad/postgres';
import { TenantSchemaService } from '@mad/proto/tenancy';
import { grpcTransport, reasonOf, serveRpc, violationsOf, type GrpcTransport, type RpcServer } from '@mad/rpc';
import { testCluster } from '@mad/testing';
import pg from 'pg';
import { tenantSchemaService } from '../src/index.ts';
import { silent } from './fleet.ts';

const SCHEMA = 'results';
const DATABASE = `mad_tss_${randomBytes(4).toString('hex')}`;
const migrations = [
  defineMigration('2026_01_05_1000_create_notes.ts', {
    up: `CREATE TABLE results.notes (note_id uuid PRIMARY KEY, body text NOT NULL)`,
    down: 'DROP TABLE results.notes',
  }),
  defineMigration('2026_01_06_1000_add_stars.ts', {
    up: 'ALTER TABLE results.notes ADD COLUMN stars integer',
    down: 'ALTER TABLE results.notes DROP COLUMN stars',
  }),
];
const [first, second] = migrations.map(({ migrationName }) => migrationName) as [string, string];

let server: RpcServer;
let transport: GrpcTransport;
let client: Client<typeof TenantSchemaService>;
let admin: pg.Client;

function target(more: { password?: string; database?: string } = {}) {
  const url = new URL(testCluster().url('mad_migrator', DATABASE));
  return {
    ...testCluster().place,
    user: url.username,
    password: url.password,
    database: DATABASE,
    role: 'mad_results_owner',
    ...more,
  };
}

beforeAll(async () => {
  const cluster = testCluster();
  const outside = new pg.Client(clientOptions(cluster.adminUrl));
  await outside.connect();
  await outside.query(`CREATE DATABASE ${DATABASE}`);
  await outside.end();
  admin = new pg.Client(clientOptions(cluster.adminUrlTo(DATABASE)));
  await admin.connect();
  await admin.query('CREATE SCHEMA results AUTHORIZATION mad_results_owner');
  server = await serveRpc({
    service: 'results',
    host: '127.0.0.1',
    port: 0,
    services: [tenantSchemaService({ schema: SCHEMA, migrations, logger: silent })],
    interceptors: [],
    logger: silent,
    drainMs: 0,
  });
  transport = grpcTransport(`127.0.0.1:${server.port}`);
  client = createClient(TenantSchemaService, transport);
});

afterAll(async () => {
  transport?.close();
  await server?.close();
  await admin.end();
  const outside = new pg.Client(clientOptions(testCluster().adminUrl));
  await outside.connect();
  await outside.query(`DROP DATABASE ${DATABASE} WITH (FORCE)`);
  await outside.end();
});

test('lists the migrations with checksums, oldest first', async () => {
  const listed = await client.listMigrations({});
  expect(listed.schema).toBe(SCHEMA);
  expect(listed.migrations).toMatchObject(migrations.map(({ migrationName: name, checksum }) => ({ name, checksum })));
});

test('migrates up to a version, to the newest, down, and changes nothing when repeated', async () => {
  const one = await client.migrateDatabase({ target: target(), version: first });
  expect(one).toMatchObject({ applied: [first], version: first });
  const two = await client.migrateDatabase({ target: target() });
  expect(two).toMatchObject({ applied: [second], version: second });
  expect(two.fingerprint).not.toBe(one.fingerprint);
  const again = await client.migrateDatabase({ target: target() });
  expect(again).toMatchObject({ applied: [], version: second, fingerprint: two.fingerprint });
  const down = await client.migrateDatabase({ target: target(), version: first });
  expect(down).toMatchObject({ applied: [second], version: first, fingerprint: one.fingerprint });
  expect((await client.migrateDatabase({ target: target() })).fingerprint).toBe(two.fingerprint);
});

describe('a try', () => {
  test('runs what would run, leaves nothing of it, and says what it could not try', async () => {
    await client.migrateDatabase({ target: target(), version: first });
    const before = await client.fingerprintDatabase({ target: target() });
    expect(await client.tryMigrations({ target: target() })).toMatchObject({ tried: [second], untried: [] });
    expect(await client.fingerprintDatabase({ target: target() })).toEqual(before);
    await client.migrateDatabase({ target: target() });
    expect(await client.tryMigrations({ target: target() })).toMatchObject({ tried: [], untried: [] });
    const unknown = await client.tryMigrations({ target: target(), version: 'Nope1' }).catch((error: unknown) => error);
    expect(violationsOf(unknown).map(({ field }) => field)).toEqual(['version']);
  });

  test('that fails names the migration and what Postgres says of it', async () => {
    await client.migrateDatabase({ target: target(), version: first });
    await admin.query('ALTER TABLE results.notes ADD COLUMN stars text');
    const failed = await client.tryMigrations({ target: target() }).catch((error: unknown) => error);
    await admin.query('ALTER TABLE results.notes DROP COLUMN stars');
    expect(failed).toMatchObject({ code: Code.FailedPrecondition });
    expect(reasonOf(failed)).toBe('MIGRATION_FAILED');
    expect((failed as Error).message).toContain(`migration ${second} failed: column "stars" of relation "notes"`);
  });

  test('that finds a table held gives up, and says that it may be asked again', async () => {
    await client.migrateDatabase({ target: target(), version: first });
    await admin.query('BEGIN; LOCK TABLE results.notes IN ACCESS SHARE MODE');
    const held = await client.tryMigrations({ target: target() }).catch((error: unknown) => error);
    await admin.query('ROLLBACK');
    expect(held).toMatchObject({ code: Code.Aborted });
    expect((held as Error).message).toContain('lock timeout');
  });
});

describe('the fingerprint', () => {
  test.each([
    ['a column', 'ALTER TABLE results.notes ADD COLUMN odd text', 'ALTER TABLE results.notes DROP COLUMN odd'],
    [
      'a grant',
      'GRANT SELECT ON results.notes TO mad_results_app',
      'REVOKE SELECT ON results.notes FROM mad_results_app',
    ],
    ['an index', 'CREATE INDEX odd ON results.notes (body)', 'DROP INDEX results.odd'],
    [
      'a function',
      `CREATE FUNCTION results.odd() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
      'DROP FUNCTION results.odd()',
    ],
  ])('shows %s made by hand, whatever the record of migrations says', async (_what, sql, undo) => {
    await client.migrateDatabase({ target: target() });
    // The first grant turns the unwritten rights of the owner into written ones.
    await admin.query('GRANT ALL ON results.notes TO mad_results_owner');
    const before = await client.fingerprintDatabase({ target: target() });
    expect(before.version).toBe(second);
    await admin.query(sql);
    const drifted = await client.fingerprintDatabase({ target: target() });
    expect(drifted).toMatchObject({ version: second });
    expect(drifted.fingerprint).not.toBe(before.fingerprint);
    await admin.query(undo);
    expect((await client.fingerprintDatabase({ target: target() })).fingerprint).toBe(before.fingerprint);
  });
});

test('names what is wrong with a request, and says when the database is out of reach', async () => {
  const unknown = await client.migrateDatabase({ target: target(), version: 'Nope1' }).catch((error: unknown) => error);
  expect(violationsOf(unknown).map(({ field }) => field)).toEqual(['version']);
  const nothing = await client.migrateDatabase({}).catch((error: unknown) => error);
  expect(violationsOf(nothing).map(({ field }) => field)).toEqual(['target']);
  for (const more of [{ password: 'wrong' }, { database: 'no_such_database' }]) {
    const away = await client.fingerprintDatabase({ target: target(more) }).catch((error: unknown) => error);
    expect(away).toMatchObject({ code: Code.Unavailable });
    expect(reasonOf(away)).toBe('DATABASE_UNAVAILABLE');
  }
});
