import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code, ConnectError } from '@connectrpc/connect';
import { MoleculeService, PipelineService } from '@mad/proto/catalog';
import { OrganizationStatus } from '@mad/proto/identity';
import { OrganizationErasureService } from '@mad/proto/tenancy';
import { reasonOf } from '@mad/rpc';
import pg from 'pg';
import { eraseStragglers } from '../src/erasure.ts';
import { openCatalogDatabase } from '../src/index.ts';
import { startTestCatalog, type TestCatalog } from './harness.ts';

const MOLECULES = 12_500;
const USER = randomUUID();

let catalog: TestCatalog;

beforeAll(async () => {
  catalog = await startTestCatalog();
});
afterAll(() => catalog?.close());

/** One row at least in every table that has an organization. */
async function furnish(orgId: string): Promise<void> {
  const [set, pipeline, version, job] = [randomUUID(), randomUUID(), randomUUID(), randomUUID()];
  await catalog.admin.query(`
    INSERT INTO catalog.molecules (org_id, molecule_id, name, smiles, canonical_smiles, formula, molecular_weight,
        properties, fingerprint, normalizer, created_by)
      SELECT '${orgId}', gen_random_uuid(), 'm', 'C' || n, 'C' || n, 'CH4', 16, '{}', decode(repeat('00', 256), 'hex'),
        'rdkit 1', '${USER}' FROM generate_series(1, ${MOLECULES}) n;
    INSERT INTO catalog.org_usage (org_id) VALUES ('${orgId}') ON CONFLICT DO NOTHING;
    INSERT INTO catalog.molecule_sets (org_id, molecule_set_id, name, created_by) VALUES ('${orgId}', '${set}', 's', '${USER}');
    INSERT INTO catalog.molecule_set_members SELECT '${orgId}', '${set}', row_number() OVER (), molecule_id
      FROM (SELECT molecule_id FROM catalog.molecules WHERE org_id = '${orgId}' LIMIT 100) m;
    UPDATE catalog.molecule_sets SET sealed_at = now() WHERE molecule_set_id = '${set}';
    INSERT INTO catalog.artifacts (org_id, artifact_id, purpose, name, content_type, uri, size_bytes, sha256, created_by)
      VALUES ('${orgId}', gen_random_uuid(), 'other', 'n', 'text/plain', 'orgs/x', 1, '${'a'.repeat(64)}', '${USER}');
    INSERT INTO catalog.pipelines (pipeline_id, org_id, name, visibility, created_by)
      VALUES ('${pipeline}', '${orgId}', 'shared', 'public', '${USER}');
    INSERT INTO catalog.pipeline_versions (pipeline_version_id, org_id, pipeline_id, version, spec, created_by, published,
        published_at)
      VALUES ('${version}', '${orgId}', '${pipeline}', 1, '{"version": "1", "tasks": []}', '${USER}', true, now());
    INSERT INTO catalog.task_definitions (task_definition_id, org_id, task_id, version, task_type, engine, metadata,
        interface_spec, service_config, deterministic, cache_version)
      VALUES (gen_random_uuid(), '${orgId}', 'a.b', '1', 'analysis', 'e@1', '{}',
        '{"inputs": {}, "outputs": {}, "parameters": {}}', '{}', true, 1);
    INSERT INTO catalog.jobs_meta (job_id, org_id, pipeline_id, pipeline_version_id, molecule_set_id, parameters, plan,
        input_count, planned_tasks, created_by)
      VALUES ('${job}', '${orgId}', '${pipeline}', '${version}', '${set}', '{}', '[]', 1, 1, '${USER}');
    INSERT INTO catalog.org_queue (org_id, max_running, max_concurrent_jobs) VALUES ('${orgId}', 1, 1);
    INSERT INTO catalog.org_queue_depth VALUES ('${orgId}', 'e@1', 1, 1, 0);
    INSERT INTO catalog.task_queue (task_execution_id, org_id, job_id, engine, cores, memory_mb)
      VALUES (gen_random_uuid(), '${orgId}', '${job}', 'e@1', 1, 1);
    INSERT INTO catalog.idempotency_keys (org_id, method, request_id, payload_hash, field_hashes, expires_at)
      VALUES ('${orgId}', 'm', gen_random_uuid(), '\\x00', '{}', now() + interval '1 day')`);
}

/** Every table with organizations' rows, and how many it has of this one. */
async function rowsOf(orgId: string): Promise<Record<string, number>> {
  const tables = await catalog.admin.query<{ relname: string }>(
    `SELECT relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
     WHERE relnamespace = 'catalog'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
       AND relname <> 'erasures' ORDER BY 1`,
  );
  const counts: Record<string, number> = {};
  for (const { relname } of tables.rows) {
    const sql = `SELECT count(*)::int AS n FROM catalog.${relname} WHERE org_id = $1`;
    counts[relname] = (await catalog.admin.query<{ n: number }>(sql, [orgId])).rows[0]!.n;
  }
  return counts;
}

test('an organization goes from every table, in transactions of moderate size, counted; its neighbour keeps all', async () => {
  const { acme, globex } = catalog;
  await furnish(acme.orgId);
  await furnish(globex.orgId);
  const [before, neighbours] = [await rowsOf(acme.orgId), await rowsOf(globex.orgId)];
  expect(Object.entries(before).filter(([, n]) => n === 0)).toEqual([]);

  // Both know the organization as one in use.
  const molecules = await catalog.member(MoleculeService, acme);
  await molecules.listMolecules({ orgId: acme.orgId, pageSize: 1 });
  acme.status = OrganizationStatus.ERASING;
  const owner = await catalog.service(OrganizationErasureService, 'provisioner');
  const answers = [];
  do answers.push(await owner.eraseOrganization({ orgId: acme.orgId }));
  while (!answers.at(-1)!.done);
  expect(answers.length).toBeGreaterThan(1);
  const counted = Object.fromEntries(Object.entries(answers.at(-1)!.rows).map(([table, n]) => [table, Number(n)]));
  expect(counted).toEqual(before);
  expect(Object.values(await rowsOf(acme.orgId)).reduce((sum, n) => sum + n)).toBe(0);
  expect(await rowsOf(globex.orgId)).toEqual(neighbours);
  // Nobody is let in by what was known before.
  const refused = await molecules.listMolecules({ orgId: acme.orgId }).catch((error: unknown) => error);
  expect([ConnectError.from(refused).code, reasonOf(refused)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
  // Its public pipeline is no longer offered to others.
  const { pipelines } = await (await catalog.member(PipelineService, globex)).listPipelines({ orgId: globex.orgId });
  expect(pipelines.map(({ orgId }) => orgId)).toEqual([globex.orgId]);
}, 120_000);

test('what a request under way wrote afterwards is removed by a repeat, and by the hourly round', async () => {
  const { acme } = catalog;
  const straggler = () =>
    catalog.admin.query(
      `INSERT INTO catalog.pipelines (pipeline_id, org_id, name, created_by) VALUES (gen_random_uuid(), $1, $2, $3)`,
      [acme.orgId, randomUUID(), USER],
    );
  const owner = await catalog.service(OrganizationErasureService, 'provisioner');
  const before = await owner.eraseOrganization({ orgId: acme.orgId });
  await straggler();
  const after = await owner.eraseOrganization({ orgId: acme.orgId });
  expect(Number(after.rows['pipelines'])).toBe(Number(before.rows['pipelines']) + 1);
  await straggler();
  const { url, systemUrl } = catalog.config.database;
  const database = await openCatalogDatabase({ ...catalog.config.database, url, systemUrl });
  try {
    await eraseStragglers(database);
  } finally {
    await database.close();
  }
  expect((await rowsOf(acme.orgId))['pipelines']).toBe(0);
});

test('only the provisioner may ask, and no login may call the function or touch its counts', async () => {
  const identity = await catalog.service(OrganizationErasureService, 'identity');
  const refused = await identity.eraseOrganization({ orgId: catalog.globex.orgId }).catch((error: unknown) => error);
  expect(ConnectError.from(refused).code).toBe(Code.PermissionDenied);
  const login = new pg.Client(catalog.database.url('mad_catalog'));
  await login.connect();
  try {
    for (const sql of [
      `SELECT catalog.erase_organization('${catalog.globex.orgId}', 10)`,
      'SELECT org_id FROM catalog.erasures',
      'DELETE FROM catalog.artifacts',
    ]) {
      await expect(login.query(sql)).rejects.toMatchObject({ code: '42501' });
    }
  } finally {
    await login.end();
  }
});
