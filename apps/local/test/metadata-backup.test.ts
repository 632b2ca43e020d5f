import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { catalogMigrations } from '@mad/catalog';
import { identityMigrations } from '@mad/identity';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { provisionerMigrations } from '@mad/provisioner';
import { metadataDatabase, testCluster, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import { backUpMetadata, restoreMetadata, verifyMetadata, type MetadataPlace } from '../src/metadata-backup.ts';

const SLOW = 120_000;
const ORG = uuidv7();
const LATER = uuidv7();
const KEY = `decode(repeat('01', 60), 'hex')`;

let home: string;
let database: TestDatabase;
let place: MetadataPlace;
const made: string[] = [];

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-metadata-'));
  const services = [
    { schema: 'identity', migrations: identityMigrations },
    { schema: 'catalog', migrations: catalogMigrations },
    { schema: 'provisioner', migrations: provisionerMigrations },
  ];
  database = await metadataDatabase({ services });
  place = {
    adminUrl: testCluster().adminUrl,
    migrateUrl: database.url('mad_migrator'),
    database: database.name,
    masterKey: randomBytes(32).toString('base64'),
    objectStoreUrl: pathToFileURL(home).href,
  };
  await query(organization(ORG, 'acme'));
  await query(tenant(ORG));
}, SLOW);

afterAll(async () => {
  const client = new pg.Client(clientOptions(testCluster().adminUrl));
  await client.connect();
  for (const name of made) await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  await client.end();
  await database?.drop();
  await rm(home, { recursive: true, force: true });
});

async function query<R extends pg.QueryResultRow>(sql: string): Promise<R[]> {
  const client = new pg.Client(clientOptions(database.adminUrl));
  await client.connect();
  try {
    const answer = await client.query<R>(sql);
    return answer.rows;
  } finally {
    await client.end();
  }
}

const organization = (orgId: string, slug: string): string =>
  `INSERT INTO identity.organizations (org_id, name, slug, status, region, quotas)
   VALUES ('${orgId}', '${slug}', '${slug}', 'active', 'local', '{}')`;

const tenant = (orgId: string): string => `
  INSERT INTO provisioner.database_servers (name, host, port, region, connection_budget, max_tenants, provisioner_secret,
      migrator_secret, master_key_version)
    VALUES ('local', 'h', 1, 'local', 80, 10, '\\x00', '\\x00', 1) ON CONFLICT DO NOTHING;
  INSERT INTO provisioner.data_keys (org_id, version, wrapped_key, master_key_version) VALUES ('${orgId}', 1, ${KEY}, 1);
  INSERT INTO provisioner.operations (operation_id, org_id, schema, kind) VALUES ('${orgId}', '${orgId}', 'results', 'provision');
  INSERT INTO provisioner.tenants (org_id, schema, server_id, database_name, region, operation_id)
    SELECT '${orgId}', 'results', server_id, 'mad_results_${orgId.replaceAll('-', '')}', 'local', '${orgId}'
    FROM provisioner.database_servers;
  INSERT INTO provisioner.tenant_credentials (org_id, schema, slot, role_name, secret, data_key_version, active)
    VALUES ('${orgId}', 'results', 'a', 'mad_results_${orgId.replaceAll('-', '')}_a', '\\x5ec4e7', 1, true)`;

describe('metadata', () => {
  test(
    'is archived as of one moment, tried, and restored with the newest keys in the place of what was there',
    async () => {
      const { archive, keys, rows, sizeBytes } = await backUpMetadata(place);
      // The organization, its tenant, operation and server: its key and what that seals are not among them.
      expect(sizeBytes).toBeGreaterThan(0);
      expect(await verifyMetadata(place, archive)).toBe(rows);

      // Afterwards another organization comes, and the first one is renamed.
      await query(organization(LATER, 'later'));
      await query(tenant(LATER));
      await query(`UPDATE identity.organizations SET name = 'renamed' WHERE slug = 'acme'`);
      const second = await backUpMetadata(place);
      // Only the newest keys are kept: those of an organization that was erased since are nowhere.
      await expect(readFile(join(home, keys))).rejects.toThrow('ENOENT');

      const { replaced } = await restoreMetadata(place, archive);
      made.push(replaced!);
      expect(await query('SELECT slug, name FROM identity.organizations')).toEqual([{ slug: 'acme', name: 'acme' }]);
      // The credentials are those of tenants that are known again; keys are all there.
      expect(await query('SELECT org_id, secret FROM provisioner.tenant_credentials')).toEqual([
        { org_id: ORG, secret: Buffer.from('5ec4e7', 'hex') },
      ]);
      expect(await query('SELECT count(*)::int AS n FROM provisioner.data_keys')).toEqual([{ n: 2 }]);
      // Row-level security binds the services' logins as before.
      const login = new pg.Client(clientOptions(database.url('mad_identity')));
      await login.connect();
      expect((await login.query('SELECT FROM identity.organizations')).rowCount).toBe(0);
      await login.end();

      const back = await restoreMetadata(place, second.archive);
      made.push(back.replaced!);
      expect(await query('SELECT name FROM identity.organizations ORDER BY slug')).toEqual([
        { name: 'renamed' },
        { name: 'later' },
      ]);
    },
    SLOW,
  );

  test(
    'holds no keys, and nothing of it is restored under another master key or when it was changed',
    async () => {
      const { archive } = await backUpMetadata(place);
      const strange = { ...place, masterKey: randomBytes(32).toString('base64') };
      await expect(verifyMetadata(strange, archive)).rejects.toThrow(/^ARCHIVE_KEY_UNAVAILABLE/);
      const path = join(home, archive);
      const whole = await readFile(path);
      await writeFile(path, whole.subarray(0, -1));
      await expect(restoreMetadata(place, archive)).rejects.toThrow(/^ARCHIVE_TRUNCATED/);
      const flipped = Buffer.from(whole);
      flipped[whole.length - 40]! ^= 1;
      await writeFile(path, flipped);
      await expect(restoreMetadata(place, archive)).rejects.toThrow(/^ARCHIVE_ALTERED/);
      expect(await query('SELECT count(*)::int AS n FROM identity.organizations')).toEqual([{ n: 2 }]);
      await writeFile(path, whole);
    },
    SLOW,
  );
});
