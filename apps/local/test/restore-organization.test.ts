import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { generateSigningKey } from '@mad/auth';
import { CATALOG_LEFT_OUT, catalogMigrations, catalogOrganizationRows } from '@mad/catalog';
import { IDENTITY_LEFT_OUT, identityMigrations, identityOrganizationRows } from '@mad/identity';
import { clientOptions } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import {
  PROVISIONER_LEFT_OUT,
  parseMasterKeys,
  provisionerMigrations,
  provisionerOrganizationRows,
  signErasure,
} from '@mad/provisioner';
import { metadataDatabase, testCluster, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import { backUpMetadata, type MetadataPlace } from '../src/metadata-backup.ts';
import { restoreOrganization, RowsDiffer } from '../src/restore-organization.ts';
import { organizationRows } from './support/organization-rows.ts';

const MASTER_KEY = randomBytes(32).toString('base64');
const SLOW = 120_000;
const PROCESS = fileURLToPath(new URL('./support/restore-organization-process.ts', import.meta.url));
const OWNERS = [identityOrganizationRows, catalogOrganizationRows, provisionerOrganizationRows];

let home: string;
let database: TestDatabase;
let place: MetadataPlace;
let admin: pg.Client;
/** For each test and its second try. */
const pairs = Array.from({ length: 16 }, () => [uuidv7(), uuidv7()] as const);
let org: string;
let neighbour: string;
let archive: string;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'mad-organization-'));
  database = await metadataDatabase({
    services: [
      { schema: 'identity', migrations: identityMigrations },
      { schema: 'catalog', migrations: catalogMigrations },
      { schema: 'provisioner', migrations: provisionerMigrations },
    ],
  });
  place = {
    adminUrl: testCluster().adminUrl,
    migrateUrl: database.url('mad_migrator'),
    database: database.name,
    master: parseMasterKeys(MASTER_KEY),
    objectStoreUrl: pathToFileURL(home).href,
    erasureKeys: [],
  };
  admin = new pg.Client(clientOptions(database.adminUrl));
  await admin.connect();
  for (const one of pairs.flat()) await fill(one);
  ({ archive } = await backUpMetadata(place));
}, SLOW);

afterAll(async () => {
  await admin?.end();
  await database?.drop();
  await rm(home, { recursive: true, force: true });
});

/** Each test has two of its own in the one archive of all: an archive takes seconds. */
beforeEach(() => {
  const pair = pairs.pop();
  if (pair === undefined) throw new Error('the archive holds too few organizations');
  [org, neighbour] = pair;
});

async function query<R extends pg.QueryResultRow>(sql: string): Promise<R[]> {
  return (await admin.query<R>(sql)).rows;
}

/** An organization in everything that is archived. */
async function fill(orgId: string): Promise<void> {
  const operation = uuidv7();
  const object = `orgs/${orgId}/backups/${operation}/x`;
  await mkdir(join(home, object, '..'), { recursive: true });
  await writeFile(join(home, object), 'sealed');
  await query(organizationRows(orgId, operation, object));
}

/** A checksum of all that can be brought back of an organization, by table. */
async function contents(orgId: string, tables = OWNERS): Promise<Record<string, string>> {
  const sums: Record<string, string> = {};
  for (const { schema, tables: owned } of tables) {
    for (const { name, whose } of owned) {
      const [row] = await query<{ sum: string }>(
        `SELECT count(*) || ' ' || md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) AS sum
         FROM ${schema}.${name} t WHERE ${whose.replaceAll('$org', `'${orgId}'`)}`,
      );
      sums[`${schema}.${name}`] = row!.sum;
    }
  }
  return sums;
}

/** What a hand in the wrong database does. */
async function loseRows(orgId: string): Promise<void> {
  await query(`BEGIN; SET LOCAL session_replication_role = replica;
    DELETE FROM identity.memberships WHERE org_id = '${orgId}';
    DELETE FROM identity.membership_roles WHERE org_id = '${orgId}';
    DELETE FROM catalog.molecules WHERE org_id = '${orgId}' AND name < 'alkane 3';
    DELETE FROM catalog.molecule_set_members WHERE org_id = '${orgId}' AND item_no > 20;
    DELETE FROM catalog.jobs_meta WHERE org_id = '${orgId}';
    DELETE FROM catalog.pipeline_versions WHERE org_id = '${orgId}';
    DELETE FROM catalog.pipelines WHERE org_id = '${orgId}';
    DELETE FROM provisioner.backup_policies WHERE org_id = '${orgId}';
    COMMIT`);
}

const restore = (more: Partial<Parameters<typeof restoreOrganization>[1]> = {}) =>
  restoreOrganization(place, { archive, organization: org, ...more });

const operations = (orgId: string) =>
  query<{ operation_id: string; state: string; step: string; progress_done: number; error: string }>(
    `SELECT operation_id, state, step, progress_done, error FROM provisioner.operations
     WHERE org_id = '${orgId}' AND kind = 'restore_organization' ORDER BY started_at`,
  );

describe('one organization of an archive of the metadata', () => {
  test(
    'every table with rows of organizations is either brought back or left out for a reason',
    async () => {
      const tables = await query<{ name: string }>(
        `SELECT DISTINCT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
         WHERE n.nspname IN ('identity', 'catalog', 'provisioner') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
         ORDER BY 1`,
      );
      const leftOut = { identity: IDENTITY_LEFT_OUT, catalog: CATALOG_LEFT_OUT, provisioner: PROVISIONER_LEFT_OUT };
      const known = [
        ...OWNERS.flatMap(({ schema, tables: owned }) => owned.map(({ name }) => `${schema}.${name}`)),
        ...Object.entries(leftOut).flatMap(([schema, names]) => Object.keys(names).map((name) => `${schema}.${name}`)),
      ];
      // These have no column of their own for it.
      const through = ['identity.users', 'identity.role_permissions'];
      expect(known.filter((name) => !through.includes(name)).sort()).toEqual(tables.map(({ name }) => name));
    },
    SLOW,
  );

  test(
    'rows that were lost come back as they were, counted first, and the neighbours are not touched',
    async () => {
      const [before, beside] = [await contents(org), await contents(neighbour)];
      await loseRows(org);
      const lost = await contents(org);
      expect(lost).not.toEqual(before);

      const { tables } = await restore({ dryRun: true });
      expect(tables.filter(({ missing }) => missing > 0).map(({ table, missing }) => [table, missing])).toEqual([
        ['identity.memberships', 1],
        ['identity.membership_roles', 1],
        ['catalog.molecules', 22],
        ['catalog.molecule_set_members', 30],
        ['catalog.pipelines', 1],
        ['catalog.pipeline_versions', 1],
        ['catalog.jobs_meta', 1],
        ['provisioner.backup_policies', 1],
      ]);
      expect(await contents(org)).toEqual(lost);
      expect(await operations(org)).toEqual([]);

      const { operationId } = await restore();
      const after = await contents(org);
      // The operation is a row of the organization as well.
      expect({ ...after, 'provisioner.operations': '' }).toEqual({ ...before, 'provisioner.operations': '' });
      expect(await contents(neighbour)).toEqual(beside);
      expect(await operations(org)).toMatchObject([
        { operation_id: operationId, state: 'succeeded', progress_done: 3, error: '' },
      ]);
      expect(
        await query(
          `SELECT action, metadata ->> 'archive' AS archive FROM identity.audit_logs WHERE org_id = '${org}'`,
        ),
      ).toEqual([{ action: 'organizations.rows_restored', archive }]);
      // The rules that rested guard again.
      await expect(query(`UPDATE catalog.molecule_sets SET name = 'other' WHERE org_id = '${org}'`)).rejects.toThrow(
        'a sealed molecule set does not change',
      );
    },
    SLOW,
  );

  test(
    'rows that differ are a refusal; they stay with missing-only and become the archive’s with replace',
    async () => {
      const before = await contents(org);
      await query(`UPDATE catalog.pipelines SET description = 'changed' WHERE org_id = '${org}';
        UPDATE identity.users u SET display_name = 'Ann Other' FROM identity.memberships m
          WHERE m.user_id = u.user_id AND m.org_id = '${org}';
        UPDATE identity.tokens SET revoked = true WHERE org_id = '${org}';
        DELETE FROM identity.role_permissions p USING identity.roles r WHERE r.role_id = p.role_id AND r.org_id = '${org}';
        INSERT INTO catalog.pipelines (org_id, name, created_by) VALUES ('${org}', 'newer', '${org}')`);
      const changed = await contents(org);
      const refusal = await restore().catch((error: unknown) => error);
      expect(refusal).toBeInstanceOf(RowsDiffer);
      expect((refusal as Error).message).toContain('1 of catalog.pipelines');
      expect(await contents(org)).toEqual(changed);
      expect(await operations(org)).toEqual([]);

      await restore({ mode: 'missing-only' });
      expect(
        await query(`SELECT name, description FROM catalog.pipelines WHERE org_id = '${org}' ORDER BY name`),
      ).toEqual([
        { name: 'dock', description: 'changed' },
        { name: 'newer', description: '' },
      ]);
      expect((await contents(org))['identity.role_permissions']).toEqual(before['identity.role_permissions']);

      const { tables } = await restore({ mode: 'replace' });
      expect(tables.find(({ table }) => table === 'catalog.pipelines')).toMatchObject({ different: 1, extra: 1 });
      const after = await contents(org);
      for (const name of ['catalog.pipelines', 'identity.roles', 'identity.memberships', 'catalog.molecules']) {
        expect([name, after[name]]).toEqual([name, before[name]]);
      }
      // People are not one organization's to change, and what was revoked stays revoked.
      expect(await query(`SELECT revoked FROM identity.tokens WHERE org_id = '${org}'`)).toEqual([{ revoked: true }]);
      expect(after['identity.users']).toEqual(changed['identity.users']);
    },
    SLOW,
  );

  test(
    'replace keeps what jobs since the archive need, and who is no member then has no token',
    async () => {
      const set = uuidv7();
      const late = uuidv7();
      await query(`
        INSERT INTO catalog.molecule_sets (org_id, molecule_set_id, size, created_by) VALUES ('${org}', '${set}', 1, '${org}');
        INSERT INTO catalog.molecule_set_members (org_id, molecule_set_id, item_no, molecule_id)
          SELECT org_id, '${set}', 1, molecule_id FROM catalog.molecules WHERE org_id = '${org}' LIMIT 1;
        INSERT INTO catalog.jobs_meta (org_id, pipeline_id, pipeline_version_id, molecule_set_id, parameters, plan, input_count,
            planned_tasks, created_by)
          SELECT '${org}', pipeline_id, pipeline_id, '${set}', '{}', '[]', 1, 1, '${org}' FROM catalog.pipelines WHERE org_id = '${org}';
        INSERT INTO identity.users (user_id, email) VALUES ('${late}', 'late@${late}.test');
        INSERT INTO identity.memberships (user_id, org_id) VALUES ('${late}', '${org}');
        INSERT INTO identity.tokens (user_id, org_id, name, prefix, digest, expires_at)
          VALUES ('${late}', '${org}', 'late', '${randomBytes(5).toString('hex')}', decode(repeat('03', 32), 'hex'), now() + interval '1 day')`);
      await restore({ mode: 'replace' });
      expect(await query(`SELECT FROM catalog.molecule_set_members WHERE molecule_set_id = '${set}'`)).toHaveLength(1);
      expect(await query(`SELECT FROM catalog.jobs_meta WHERE org_id = '${org}'`)).toHaveLength(2);
      expect(await query(`SELECT FROM identity.memberships WHERE user_id = '${late}'`)).toEqual([]);
      expect(await query(`SELECT revoked FROM identity.tokens WHERE user_id = '${late}'`)).toEqual([{ revoked: true }]);
    },
    SLOW,
  );

  test(
    'an organization that is gone with its keys comes back whole, under a generation no router has seen',
    async () => {
      const [before, beside] = [await contents(org), await contents(neighbour)];
      await query(`BEGIN; SET LOCAL session_replication_role = replica;
        ${OWNERS.flatMap(({ schema, tables }) =>
          [...tables]
            .reverse()
            .map(({ name, whose }) => `DELETE FROM ${schema}.${name} t WHERE ${whose.replaceAll('$org', `'${org}'`)}`),
        ).join(';')};
        DELETE FROM catalog.org_usage WHERE org_id = '${org}'; COMMIT`);
      await restore({ organization: `s-${org}` });
      const after = await contents(org);
      const changed = Object.keys(before).filter((name) => after[name] !== before[name]);
      expect(changed).toEqual(['provisioner.operations', 'provisioner.tenants']);
      expect(await query(`SELECT state, generation FROM provisioner.tenants WHERE org_id = '${org}'`)).toEqual([
        { state: 'ready', generation: 1000001 },
      ]);
      expect(await query(`SELECT generation FROM provisioner.tenant_changes WHERE org_id = '${org}'`)).toEqual([
        { generation: 1000001 },
      ]);
      expect(await query(`SELECT molecules FROM catalog.org_usage WHERE org_id = '${org}'`)).toEqual([
        { molecules: 50 },
      ]);
      expect(await contents(neighbour)).toEqual(beside);
    },
    SLOW,
  );

  test(
    'a killed restore has put back whole owners only; run again, it goes on as the same operation',
    async () => {
      const before = await contents(org);
      await loseRows(org);
      const blocker = new pg.Client(clientOptions(database.adminUrl));
      await blocker.connect();
      await blocker.query('BEGIN; LOCK TABLE catalog.molecule_set_members IN SHARE ROW EXCLUSIVE MODE');
      const request = { archive, organization: org };
      const child = spawn(process.execPath, [PROCESS, JSON.stringify(place), MASTER_KEY, JSON.stringify(request)], {
        env: { ...process.env, NODE_OPTIONS: '' },
        stdio: ['ignore', 'ignore', 'inherit'],
      });
      try {
        // Identity is done, and catalog stands in the middle of its tables.
        while ((await operations(org))[0]?.progress_done !== 1) {
          if (child.exitCode !== null) throw new Error('it ended by itself');
          await delay(20);
        }
        child.kill('SIGKILL');
        await once(child, 'exit');
      } finally {
        await blocker.end();
      }
      const half = await contents(org);
      expect(half['identity.memberships']).toEqual(before['identity.memberships']);
      expect(half['catalog.molecules']).not.toEqual(before['catalog.molecules']);
      expect(await operations(org)).toMatchObject([{ state: 'failed', step: 'restore_identity', progress_done: 1 }]);

      // The dead process's session ends when its server process notices.
      let restored = await restore().catch((error: Error) => error);
      for (; restored instanceof Error && restored.message.includes('try again'); await delay(50)) {
        restored = await restore().catch((error: Error) => error);
      }
      if (restored instanceof Error) throw restored;
      const after = await contents(org);
      expect({ ...after, 'provisioner.operations': '' }).toEqual({ ...before, 'provisioner.operations': '' });
      expect(await operations(org)).toMatchObject([
        { operation_id: restored.operationId, state: 'succeeded', progress_done: 3, error: '' },
      ]);
      expect(await query(`SELECT FROM identity.audit_logs WHERE org_id = '${org}'`)).toHaveLength(1);
    },
    SLOW,
  );

  test(
    'what stands against it is named, and nothing of that owner is half restored',
    async () => {
      await loseRows(org);
      await query(`INSERT INTO catalog.pipelines (org_id, name, created_by) VALUES ('${org}', 'dock', '${org}')`);
      const lost = await contents(org, [catalogOrganizationRows]);
      await expect(restore()).rejects.toThrow(/^catalog.pipelines cannot be brought back: pipelines_org_id_name_key/);
      expect(await contents(org, [catalogOrganizationRows])).toEqual(lost);
      const [failed] = await operations(org);
      expect(failed!.error).toMatch(/^catalog.pipelines cannot be brought back/);

      await query(`DELETE FROM catalog.pipelines WHERE org_id = '${org}' AND name = 'dock'`);
      const { operationId } = await restore();
      expect(operationId).toBe(failed!.operation_id);
    },
    SLOW,
  );

  test(
    'an erased organization stays erased, also when only its record says so; a cut archive changes nothing',
    async () => {
      await loseRows(org);
      const lost = await contents(org);
      const path = join(home, archive);
      const whole = await readFile(path);
      await writeFile(path, whole.subarray(0, -1));
      await expect(restore()).rejects.toThrow(/^ARCHIVE_TRUNCATED/);
      await writeFile(path, whole);
      await expect(restore({ organization: uuidv7() })).rejects.toThrow('neither the archive nor');

      const own = await generateSigningKey();
      const record = {
        erasure_id: uuidv7(),
        org_id: org,
        slug: 'gone',
        operation_id: org,
        requested_by: org,
        requested_at: '2026-11-25T00:00:00.000Z',
        erased_at: '2026-11-25T00:00:01.000Z',
        databases: [],
        roles: [],
        objects: 0,
        backups: 0,
        keys: 0,
        rows: {},
      };
      await mkdir(join(home, 'erasures'), { recursive: true });
      const kept = join(home, 'erasures', record.erasure_id);
      await writeFile(kept, JSON.stringify(signErasure(record, own.privateJwk)));
      const erased = restoreOrganization(
        { ...place, erasureKeys: [own.publicJwk] },
        { archive, organization: `s-${org}`, mode: 'replace' },
      );
      await expect(erased).rejects.toThrow(/^ORGANIZATION_ERASED/);
      await rm(kept);
      await query(`UPDATE identity.organizations SET status = 'erased' WHERE org_id = '${org}'`);
      await expect(restore({ mode: 'replace' })).rejects.toThrow(/^ORGANIZATION_ERASED/);
      await query(`UPDATE identity.organizations SET status = 'active' WHERE org_id = '${org}'`);
      expect(await contents(org)).toEqual(lost);
    },
    SLOW,
  );
});
