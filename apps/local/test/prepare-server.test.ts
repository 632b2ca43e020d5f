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
