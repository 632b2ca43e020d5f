import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { catalogMigrations } from '@mad/catalog';
import { identityMigrations } from '@mad/identity';
import { generateSigningKey } from '@mad/auth';
import { openObjectStore } from '@mad/object-store';
import { clientOptions, openDatabase } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { parseMasterKeys, provisionerMigrations, rewriteKeys, signErasure } from '@mad/provisioner';
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
    master: parseMasterKeys(randomBytes(32).toString('base64')),
    objectStoreUrl: pathToFileURL(home).href,
    erasureKeys: [],
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
    'brings back nothing that was erased since: neither rows nor keys, and no stranger can have anything erased',
    async () => {
      const gone = uuidv7();
      await query(organization(gone, 'gone'));
      await query(tenant(gone));
      await query(`INSERT INTO identity.users (user_id, email, display_name) VALUES ('${gone}', 'ann@gone.test', 'Ann');
        INSERT INTO identity.memberships (user_id, org_id) VALUES ('${gone}', '${gone}');
        INSERT INTO catalog.pipelines (pipeline_id, org_id, name, created_by) VALUES ('${gone}', '${gone}', 'p', '${gone}');
        INSERT INTO provisioner.backups (backup_id, org_id, schema, operation_id) VALUES ('${gone}', '${gone}', 'results', '${gone}')`);
      const { archive } = await backUpMetadata(place);
      const record = {
        erasure_id: uuidv7(),
        org_id: gone,
        slug: 'gone',
        operation_id: gone,
        requested_by: gone,
        requested_at: '2026-11-25T00:00:00.000Z',
        erased_at: '2026-11-25T00:00:01.000Z',
        databases: [],
        roles: [],
        objects: 0,
        backups: 1,
        keys: 1,
        rows: {},
      };
      const [own, stranger] = [await generateSigningKey(), await generateSigningKey()];
      const erasureKeys = [own.publicJwk];
      const path = join(home, 'erasures', record.erasure_id);
      await mkdir(join(home, 'erasures'), { recursive: true });
      await writeFile(path, JSON.stringify(signErasure(record, stranger.privateJwk)));
      await expect(restoreMetadata({ ...place, erasureKeys }, archive)).rejects.toThrow('is not among');
      expect(await query(`SELECT slug FROM identity.organizations WHERE org_id = '${gone}'`)).toEqual([
        { slug: 'gone' },
      ]);

      await writeFile(path, JSON.stringify(signErasure(record, own.privateJwk)));
      const { replaced, erased } = await restoreMetadata({ ...place, erasureKeys }, archive);
      made.push(replaced!);
      expect(erased).toBe(1);
      expect(await query(`SELECT status FROM identity.organizations WHERE org_id = '${gone}'`)).toEqual([
        { status: 'erased' },
      ]);
      expect(await query(`SELECT display_name, enabled FROM identity.users WHERE user_id = '${gone}'`)).toEqual([
        { display_name: '', enabled: false },
      ]);
      expect(await query(`SELECT state FROM provisioner.tenants WHERE org_id = '${gone}'`)).toEqual([
        { state: 'erased' },
      ]);
      for (const table of [
        'catalog.pipelines',
        'identity.memberships',
        'provisioner.data_keys',
        'provisioner.tenant_credentials',
        'provisioner.backups',
      ]) {
        expect([table, await query(`SELECT FROM ${table} WHERE org_id = '${gone}'`)]).toEqual([table, []]);
      }
      // The others' are whole, and the record is known again.
      expect(await query(`SELECT slug FROM identity.organizations WHERE org_id = '${ORG}'`)).toEqual([
        { slug: 'acme' },
      ]);
      expect(await query(`SELECT erasure_id FROM provisioner.erasure_records`)).toEqual([
        { erasure_id: record.erasure_id },
      ]);
      await rm(path);
    },
    SLOW,
  );

  test(
    'keys of an organization that is erased go from the archive of keys as well',
    async () => {
      const { archive } = await backUpMetadata(place);
      const keysOf = async (): Promise<string[]> => {
        const { replaced } = await restoreMetadata(place, archive);
        made.push(replaced!);
        const rows = await query<{ org_id: string }>('SELECT org_id FROM provisioner.data_keys ORDER BY org_id');
        return rows.map(({ org_id: orgId }) => orgId);
      };
      const before = await keysOf();
      expect(before).toContain(ORG);
      const login = await openDatabase({
        url: database.url('mad_provisioner'),
        systemUrl: database.url('mad_provisioner_system'),
        schema: 'provisioner',
        applicationName: 'test',
      });
      const options = {
        master: place.master,
        objects: openObjectStore(place.objectStoreUrl),
      };
      // As the erasure does it: in one transaction with the destruction.
      await login.asSystem(async (tx) => {
        await tx.execute('DELETE FROM provisioner.tenant_credentials WHERE org_id = $1', [ORG]);
        await tx.execute('DELETE FROM provisioner.data_keys WHERE org_id = $1', [ORG]);
        await rewriteKeys(options, tx.client);
      });
      await login.close();
      expect(await readdir(join(home, 'metadata-keys'))).toHaveLength(1);
      expect(await keysOf()).toEqual(before.filter((orgId) => orgId !== ORG));
    },
    SLOW,
  );

  test(
    'holds no keys, and nothing of it is restored under another master key or when it was changed',
    async () => {
      const { archive } = await backUpMetadata(place);
      const before = await query('SELECT count(*)::int AS n FROM identity.organizations');
      const strange = { ...place, master: parseMasterKeys(randomBytes(32).toString('base64')) };
      await expect(verifyMetadata(strange, archive)).rejects.toThrow(/^ARCHIVE_KEY_UNAVAILABLE/);
      const path = join(home, archive);
      const whole = await readFile(path);
      await writeFile(path, whole.subarray(0, -1));
      await expect(restoreMetadata(place, archive)).rejects.toThrow(/^ARCHIVE_TRUNCATED/);
      const flipped = Buffer.from(whole);
      flipped[whole.length - 40]! ^= 1;
      await writeFile(path, flipped);
      await expect(restoreMetadata(place, archive)).rejects.toThrow(/^ARCHIVE_ALTERED/);
      expect(await query('SELECT count(*)::int AS n FROM identity.organizations')).toEqual(before);
      await writeFile(path, whole);
    },
    SLOW,
  );
});
