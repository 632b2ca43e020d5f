import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { metadataDatabase, testCluster, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import { bootstrapTenantServer, clientOptions, createMetadataDatabase, scramVerifier } from '../src/index.ts';

let database: TestDatabase;

beforeAll(async () => {
  database = await metadataDatabase({ services: [{ schema: 'identity', migrations: [] }] });
});

afterAll(async () => {
  await database?.drop();
});

async function as(url: string, ...statements: string[]): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(clientOptions(url));
  await client.connect();
  try {
    let rows: Record<string, unknown>[] = [];
    for (const sql of statements) rows = (await client.query(sql)).rows as Record<string, unknown>[];
    return rows;
  } finally {
    await client.end();
  }
}

const REFUSED = { code: '42501' };

test('every role has the rights it needs and no more', async () => {
  const rows = await as(
    database.adminUrl,
    `SELECT rolname AS name, concat_ws(' ', CASE WHEN rolcanlogin THEN 'login' END, CASE WHEN rolsuper THEN 'super' END,
       CASE WHEN rolbypassrls THEN 'bypassrls' END, CASE WHEN rolcreatedb THEN 'createdb' END,
       CASE WHEN rolcreaterole THEN 'createrole' END, CASE WHEN rolinherit THEN 'inherit' END) AS may
     FROM pg_roles WHERE rolname LIKE 'mad\\_%' AND rolname NOT LIKE 'mad\\_test\\_%' AND rolname !~ '[0-9a-f]{32}' ORDER BY rolname`,
  );
  expect(Object.fromEntries(rows.map(({ name, may }) => [name, may]))).toMatchObject({
    mad_identity: 'login inherit',
    mad_identity_owner: 'inherit',
    mad_identity_system: 'login inherit',
    mad_migrator: 'login',
    mad_provisioner_admin: 'login createdb createrole inherit',
    mad_reporting: 'bypassrls inherit',
    mad_reporting_reader: 'inherit',
    mad_results_app: 'inherit',
    mad_results_owner: 'inherit',
  });
});

test('bootstrap may be repeated', async () => {
  const cluster = testCluster();
  await createMetadataDatabase(cluster.adminUrl, { database: database.name, services: ['identity'] });
  const extensions = await as(database.adminUrl, `SELECT extname FROM pg_extension ORDER BY 1`);
  expect(extensions.map(({ extname }) => extname)).toEqual(['btree_gin', 'citext', 'pg_trgm', 'pgcrypto', 'plpgsql']);
});

test('nobody may connect to the common databases by default', async () => {
  const rows = await as(
    database.adminUrl,
    `SELECT datname, has_database_privilege('public', oid, 'CONNECT') OR has_database_privilege('public', oid, 'TEMPORARY') AS open
     FROM pg_database WHERE datname IN ('postgres', 'template1', current_database())`,
  );
  expect(rows.map(({ open }) => open)).toEqual([false, false, false]);
});

test('the migrator holds nothing itself, becomes an owner, and its tables open to the logins', async () => {
  const migrator = database.url('mad_migrator');
  await expect(as(migrator, 'CREATE TABLE identity.probe (a int)')).rejects.toMatchObject(REFUSED);
  await expect(as(migrator, 'SET ROLE mad_results_app')).rejects.toMatchObject(REFUSED);
  await as(
    migrator,
    'SET ROLE mad_identity_owner',
    'CREATE TABLE identity.probe (a int)',
    'CREATE TABLE identity_boss.probe (a int)',
  );
  for (const role of ['mad_identity', 'mad_identity_system']) {
    await as(
      database.url(role),
      'INSERT INTO probe VALUES (1)',
      'UPDATE probe SET a = 2',
      'INSERT INTO identity_boss.probe VALUES (1)',
    );
    await expect(as(database.url(role), 'DROP TABLE probe')).rejects.toMatchObject(REFUSED);
    await expect(as(database.url(role), 'TRUNCATE probe')).rejects.toMatchObject(REFUSED);
    await expect(as(database.url(role), 'CREATE TABLE identity.mine (a int)')).rejects.toMatchObject(REFUSED);
    await expect(as(database.url(role), 'CREATE TABLE public.mine (a int)')).rejects.toMatchObject(REFUSED);
    await expect(as(database.url(role), 'SET ROLE mad_identity_owner')).rejects.toMatchObject(REFUSED);
  }
  await as(migrator, 'SET ROLE mad_reporting', 'CREATE VIEW reporting.probe AS SELECT 1 AS one');
});

test('the provisioner makes a database and its logins, hands over what is inside, ends sessions and drops it all', async () => {
  const cluster = testCluster();
  const name = `mad_results_test_${process.pid}`;
  const login = `${name}_a`;
  const inPostgres = cluster.url('mad_provisioner_admin', 'postgres');
  await as(
    inPostgres,
    `CREATE DATABASE ${name}`,
    `REVOKE ALL ON DATABASE ${name} FROM PUBLIC`,
    `CREATE ROLE ${login} LOGIN PASSWORD '${await scramVerifier('only for this test')}' IN ROLE mad_results_app`,
    `GRANT CONNECT ON DATABASE ${name} TO ${login}, mad_migrator`,
  );
  const inside = cluster.url('mad_provisioner_admin', name);
  await as(
    inside,
    'CREATE SCHEMA results AUTHORIZATION mad_results_owner',
    'SET ROLE mad_results_owner',
    'GRANT USAGE ON SCHEMA results TO mad_results_app',
  );
  await as(
    cluster.url('mad_migrator', name),
    'SET ROLE mad_results_owner',
    'CREATE TABLE results.jobs (a int)',
    'GRANT SELECT ON results.jobs TO mad_results_app',
  );

  const tenant = new pg.Client({ ...clientOptions(cluster.url(login, name)), password: 'only for this test' });
  const ended = new Promise<Error>((settle) => tenant.on('error', settle));
  await tenant.connect();
  expect((await tenant.query('SELECT a FROM results.jobs')).rows).toEqual([]);
  await expect(tenant.query('CREATE TABLE results.mine (a int)')).rejects.toMatchObject(REFUSED);

  await as(
    inPostgres,
    `ALTER ROLE ${login} NOLOGIN`,
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`,
  );
  expect(await ended).toMatchObject({ code: '57P01' });
  await as(inPostgres, `DROP DATABASE ${name}`, `DROP ROLE ${login}`);

  await expect(as(inPostgres, 'ALTER ROLE mad_provisioner_admin SUPERUSER')).rejects.toMatchObject(REFUSED);
  await expect(as(inPostgres, 'CREATE ROLE x BYPASSRLS')).rejects.toMatchObject(REFUSED);
  await expect(as(inPostgres, 'DROP ROLE mad_identity')).rejects.toMatchObject(REFUSED);
  await expect(as(cluster.url('mad_provisioner_admin', database.name), 'SELECT 1')).rejects.toMatchObject(REFUSED);
});

test('names and passwords that could change the SQL are refused', async () => {
  const { adminUrl } = testCluster();
  await expect(createMetadataDatabase(adminUrl, { database: database.name, services: ['x; DROP'] })).rejects.toThrow(
    'not a service',
  );
  const tenant = { provisionerPassword: 'p', migratorPassword: 'p', schema: 'Results"' };
  await expect(bootstrapTenantServer(adminUrl, tenant)).rejects.toThrow('not a tenant schema');
  await expect(scramVerifier('pässword')).rejects.toThrow('printable ASCII');
});
