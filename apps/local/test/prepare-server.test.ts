import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { removeEmbeddedPostgres, startEmbeddedPostgres, type EmbeddedPostgres } from '@mad/embedded-postgres';
import { clientOptions } from '@mad/postgres';
import pg from 'pg';
import { prepareServer, type ServerPasswords } from '../src/prepare-server.ts';

let home: string;
let server: EmbeddedPostgres;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-prepare-'));
  await chmod(home, 0o711);
  server = await startEmbeddedPostgres({
    dataDir: join(home, 'postgres'),
    settings: { fsync: 'off', wal_level: 'replica', reserved_connections: '0' },
  });
}, 60_000);

afterAll(async () => {
  await server?.stop();
  await removeEmbeddedPostgres(join(home, 'postgres'));
  await rm(home, { recursive: true, force: true });
});

async function asProvisioner(password: string): Promise<string> {
  const client = new pg.Client({ ...clientOptions(server.adminUrl), user: 'mad_provisioner_admin', password });
  await client.connect();
  const { rows } = await client.query<{ able: string }>(
    `SELECT rolcreatedb || ' ' || rolcreaterole || ' ' || rolsuper AS able FROM pg_roles WHERE rolname = current_user`,
  );
  await client.end();
  return rows[0]!.able;
}

async function asSuperuser<R extends pg.QueryResultRow>(sql: string): Promise<R[]> {
  const client = new pg.Client(clientOptions(server.adminUrl));
  await client.connect();
  const { rows } = await client.query<R>(sql);
  await client.end();
  return rows;
}

async function prepared(known?: ServerPasswords): Promise<{ passwords: ServerPasswords; warnings: string[] }> {
  const warnings: string[] = [];
  const options = { schemas: ['results'], known, warn: (message: string) => warnings.push(message) };
  return { passwords: await prepareServer(server.adminUrl, options), warnings };
}

test('a new server gets the logins, with passwords nobody chose; what it lacks is said', async () => {
  const { passwords, warnings } = await prepared();
  expect(passwords.provisioner_password).not.toBe(passwords.migrator_password);
  expect(await asProvisioner(passwords.provisioner_password)).toBe('true true false');
  expect(warnings).toEqual([
    'wal_level is replica: databases cannot be moved away from it online',
    'reserved_connections is 0: administration waits when tenants hold every connection',
  ]);

  // Once more it would shut the provisioner out, unless it keeps its passwords.
  await expect(prepared()).rejects.toThrow(/was prepared before: its passwords are needed/);
  expect(await asProvisioner(passwords.provisioner_password)).toBe('true true false');
  expect((await prepared(passwords)).passwords).toEqual(passwords);
  expect(await asProvisioner(passwords.provisioner_password)).toBe('true true false');
});

test('a server an earlier release prepared gets what this one needs: reserved connections for migrations and backups', async () => {
  const known = { provisioner_password: 'only-for-this-test-p', migrator_password: 'only-for-this-test-m' };
  await prepared(known);
  await asSuperuser('REVOKE pg_use_reserved_connections FROM mad_migrator');
  const uses = `SELECT r.rolname AS login, pg_has_role(r.oid, 'pg_use_reserved_connections', 'usage') AS uses
    FROM pg_roles r WHERE r.rolname IN ('mad_migrator', 'mad_provisioner_admin') ORDER BY 1`;
  expect((await asSuperuser<{ uses: boolean }>(uses))[0]!.uses).toBe(false);
  await prepared(known);
  expect(await asSuperuser(uses)).toEqual([
    { login: 'mad_migrator', uses: true },
    { login: 'mad_provisioner_admin', uses: true },
  ]);
  // That, and nothing else of its memberships.
  const inherited = await asSuperuser(
    `SELECT pg_get_userbyid(roleid) AS role FROM pg_auth_members WHERE member = 'mad_migrator'::regrole AND inherit_option`,
  );
  expect(inherited).toEqual([{ role: 'pg_use_reserved_connections' }]);
});
