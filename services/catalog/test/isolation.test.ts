import { getOption, hasOption } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Code, type Client } from '@connectrpc/connect';
import type { Database } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { access, Audience } from '@mad/proto/access';
import {
  ArtifactPurpose,
  ArtifactService,
  MoleculeService,
  MoleculeSetService,
  PipelineService,
} from '@mad/proto/catalog';
import type { Organization } from '@mad/proto/identity';
import { reasonOf } from '@mad/rpc';
import { badTokens, platformToken, serviceToken, userToken } from '@mad/testing';
import { openCatalogDatabase } from '../src/index.ts';
import { errorOf } from './errors.ts';
import { ALL_PERMISSIONS, startTestCatalog, type TestCatalog } from './harness.ts';
import { organization } from './neighbours.ts';

/** The tables of jobs and their queue: job-service.test.ts is about them. */
/** Of organizations that are no more; the login has no right there at all. */
const TOMBSTONES = ['erasures'];
const JOB_TABLES = ['jobs_meta', 'org_queue', 'org_queue_depth', 'task_queue'];
const SERVICES = [ArtifactService, MoleculeService, MoleculeSetService, PipelineService];
const SPEC = {
  version: '1',
  tasks: [{ id: 'a', task: 'rdkit.properties', inputs: { molecules: 'job.molecules' } }],
};

/** One of everything an organization can own. */
interface Belongings {
  orgId: string;
  artifactId: string;
  moleculeId: string;
  moleculeSetId: string;
  pipelineId: string;
}

interface Clients {
  artifacts: Client<typeof ArtifactService>;
  molecules: Client<typeof MoleculeService>;
  sets: Client<typeof MoleculeSetService>;
  pipelines: Client<typeof PipelineService>;
}

let catalog: TestCatalog;
let acme: Clients & Belongings;
let globex: Clients & Belongings;
let database: Database;

async function settle(of: Organization): Promise<Clients & Belongings> {
  const { orgId } = of;
  const clients: Clients = {
    artifacts: await catalog.member(ArtifactService, of),
    molecules: await catalog.member(MoleculeService, of),
    sets: await catalog.member(MoleculeSetService, of),
    pipelines: await catalog.member(PipelineService, of),
  };
  const by = () => ({ orgId, requestId: uuidv7() });
  const content = Buffer.from(`secret of ${of.slug}`);
  const { artifact } = await clients.artifacts.createArtifact({
    ...by(),
    purpose: ArtifactPurpose.OTHER,
    name: 'a',
    content,
  });
  const { moleculeSet } = await clients.sets.createMoleculeSet({ ...by(), name: 'library' });
  const { moleculeSetId } = moleculeSet!;
  const rows = [{ smiles: 'CCO', name: 'ethanol' }];
  const { registered } = await clients.molecules.registerMolecules({ ...by(), moleculeSetId, rows });
  const { pipeline } = await clients.pipelines.createPipeline({ ...by(), name: 'screening' });
  const { pipelineId } = pipeline!;
  await clients.pipelines.createPipelineVersion({ ...by(), pipelineId, spec: SPEC });
  await clients.pipelines.publishPipelineVersion({ ...by(), pipelineId, version: 1 });
  await clients.pipelines.createPipelineVersion({ ...by(), pipelineId, spec: SPEC });
  const { moleculeId } = registered[0]!;
  return { ...clients, orgId, artifactId: artifact!.artifactId, moleculeId, moleculeSetId, pipelineId };
}

beforeAll(async () => {
  catalog = await startTestCatalog();
  acme = await settle(catalog.acme);
  globex = await settle(catalog.globex);
  database = await openCatalogDatabase(catalog.config.database);
});
afterAll(async () => {
  await database.close();
  await catalog.close();
});

/** Every user method of these services: `orgId` is what the request names, the ids are of `on`. */
function callsOf(by: Clients, orgId: string, on: Belongings): Record<string, () => Promise<unknown>> {
  const request = { orgId, requestId: uuidv7() };
  const { artifactId, moleculeId, moleculeSetId, pipelineId } = on;
  const rows = [{ smiles: 'CCCO', name: 'spy' }];
  const { artifacts, molecules, sets, pipelines } = by;
  const content = Buffer.from('spy');
  return {
    createArtifact: () => artifacts.createArtifact({ ...request, purpose: ArtifactPurpose.OTHER, name: 's', content }),
    getArtifact: () => artifacts.getArtifact({ orgId, artifactId }),
    listArtifacts: () => artifacts.listArtifacts({ orgId }),
    downloadArtifact: () => artifacts.downloadArtifact({ orgId, artifactId }),
    registerMolecules: () => molecules.registerMolecules({ ...request, rows, moleculeSetId }),
    importMolecules: () =>
      molecules.importMolecules(
        (async function* () {
          yield { orgId, moleculeSetId, rows };
        })(),
      ),
    getMolecule: () => molecules.getMolecule({ orgId, moleculeId }),
    listMolecules: () => molecules.listMolecules({ orgId }),
    updateMolecule: () =>
      molecules.updateMolecule({ ...request, moleculeId, name: 'spy', updateMask: { paths: ['name'] } }),
    createMoleculeSet: () => sets.createMoleculeSet({ ...request, name: 'spy' }),
    sealMoleculeSet: () => sets.sealMoleculeSet({ orgId, moleculeSetId }),
    getMoleculeSet: () => sets.getMoleculeSet({ orgId, moleculeSetId }),
    listMoleculeSets: () => sets.listMoleculeSets({ orgId }),
    listMoleculeSetMembers: () => sets.listMoleculeSetMembers({ orgId, moleculeSetId }),
    createPipeline: () => pipelines.createPipeline({ ...request, name: 'spy' }),
    getPipeline: () => pipelines.getPipeline({ orgId, pipelineId }),
    listPipelines: () => pipelines.listPipelines({ orgId }),
    createPipelineVersion: () => pipelines.createPipelineVersion({ ...request, pipelineId, spec: SPEC }),
    publishPipelineVersion: () => pipelines.publishPipelineVersion({ ...request, pipelineId, version: 2 }),
    getPipelineVersion: () => pipelines.getPipelineVersion({ orgId, pipelineId, version: 1 }),
    listPipelineVersions: () => pipelines.listPipelineVersions({ orgId, pipelineId }),
    listTaskDefinitions: () => pipelines.listTaskDefinitions({ orgId }),
    listPipelineTemplates: () => pipelines.listPipelineTemplates({ orgId }),
  };
}

/** The methods whose requests name a thing, and not only an organization. */
const NAMES_A_THING =
  /^(get|download|update|seal|publish|register|import|createPipelineVersion|listPipelineVersions|listMoleculeSetMembers)/;

const OWN_TABLES = [
  'artifacts',
  'idempotency_keys',
  'molecule_set_members',
  'molecule_sets',
  'molecules',
  'org_usage',
  'pipeline_versions',
  'pipelines',
];

async function everythingOf(orgId: string): Promise<unknown> {
  const rows: Record<string, unknown> = {};
  for (const table of OWN_TABLES) {
    rows[table] = (
      await catalog.admin.query(`SELECT * FROM catalog.${table} WHERE org_id = $1 ORDER BY 1, 2`, [orgId])
    ).rows;
  }
  return rows;
}

async function refusedEverywhere(reason: string): Promise<void> {
  const before = await everythingOf(globex.orgId);
  const [orgId, calls] =
    reason === 'ORGANIZATION_NOT_FOUND'
      ? [globex.orgId, callsOf(acme, globex.orgId, globex)]
      : [acme.orgId, callsOf(acme, acme.orgId, globex)];
  for (const [method, call] of Object.entries(calls)) {
    if (orgId === acme.orgId && !NAMES_A_THING.test(method)) continue;
    const error = await errorOf(call());
    expect([method, error.code, reasonOf(error)]).toEqual([method, Code.NotFound, reason]);
  }
  expect(await everythingOf(globex.orgId)).toEqual(before);
}

test('the list names every user method, and each is good on one’s own', async () => {
  const methods = SERVICES.flatMap(({ methods: all }) => all)
    .filter((method) => hasOption(method, access) && getOption(method, access).audience === Audience.USER)
    .map(({ localName }) => localName);
  expect(Object.keys(callsOf(acme, acme.orgId, acme)).sort()).toEqual(methods.sort());
  const third = organization({ slug: 'third' });
  catalog.identity.organizations.set(third.orgId, third);
  const own = await settle(third);
  for (const call of Object.values(callsOf(own, third.orgId, own))) await call();
});

describe('another organization', () => {
  test('is not found, by any method', () => refusedEverywhere('ORGANIZATION_NOT_FOUND'));

  test('has nothing that is found under one’s own, by any method that names a thing', () =>
    refusedEverywhere('RESOURCE_NOT_FOUND'));

  test('shows nothing in lists', async () => {
    const lists = JSON.stringify(
      [
        await acme.artifacts.listArtifacts(acme),
        await acme.molecules.listMolecules({ orgId: acme.orgId }),
        await acme.sets.listMoleculeSets(acme),
        await acme.pipelines.listPipelines({ orgId: acme.orgId }),
      ],
      (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value),
    );
    expect(lists).toContain(acme.moleculeId);
    for (const id of [globex.orgId, globex.artifactId, globex.moleculeId, globex.moleculeSetId, globex.pipelineId]) {
      expect(lists).not.toContain(id);
    }
  });
});

describe('row-level security alone, with every query filter removed,', () => {
  test('shows one organization, in every table', async () => {
    const { rows } = await catalog.admin.query<{ relname: string }>(
      `SELECT relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'
       WHERE relnamespace = 'catalog'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition`,
    );
    const tables = rows
      .map(({ relname }) => relname)
      .filter((table) => ![...JOB_TABLES, ...TOMBSTONES].includes(table));
    expect(tables.sort()).toEqual([...OWN_TABLES, 'task_definitions'].sort());
    for (const table of OWN_TABLES) {
      const all = await catalog.admin.query(`SELECT DISTINCT org_id FROM catalog.${table}`);
      expect(all.rowCount).toBeGreaterThan(1);
      const seen = await database.inOrg(acme.orgId, (tx) => tx.query(`SELECT DISTINCT org_id FROM catalog.${table}`));
      expect(seen).toEqual([{ org_id: acme.orgId }]);
    }
    const definitions = await database.inOrg(acme.orgId, (tx) =>
      tx.query('SELECT DISTINCT org_id FROM catalog.task_definitions'),
    );
    expect(definitions).toEqual([{ org_id: null }]);
  });

  test('a partition asked by its own name shows nothing', async () => {
    const { rows } = await catalog.admin.query<{ name: string }>(
      `SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'catalog.molecules'::regclass`,
    );
    expect(rows).toHaveLength(8);
    for (const { name } of rows) {
      expect(await database.inOrg(acme.orgId, (tx) => tx.query(`SELECT org_id FROM ${name}`))).toEqual([]);
    }
  });

  test.each([
    ['into another organization', `INSERT INTO catalog.pipelines (org_id, name, created_by) VALUES ($1, 'spy', $1)`],
    [
      'into what comes with the product',
      `INSERT INTO catalog.task_definitions (org_id, task_id, version, task_type, engine, metadata, interface_spec,
         service_config, deterministic, cache_version)
       SELECT CASE WHEN $1::uuid IS NULL THEN $1 END, 'a.b', '9', task_type, engine, metadata, interface_spec, service_config, true, 1
       FROM catalog.task_definitions WHERE task_id = 'vina.dock'`,
    ],
  ])('refuses to write %s', async (_where, sql) => {
    const write = database.inOrg(acme.orgId, (tx) => tx.execute(sql, [globex.orgId]));
    await expect(write).rejects.toThrow('row-level security');
  });
});

describe('a token', () => {
  test.each([
    'expired',
    'foreignAudience',
    'foreignIssuer',
    'foreignKey',
    'altered',
    'unsigned',
    'algNone',
    'malformed',
    'empty',
  ] as const)('that is %s is refused', async (kind) => {
    const { orgId } = acme;
    const token = (await badTokens({ orgId, permissions: ALL_PERMISSIONS }))[kind];
    const error = await errorOf(catalog.as(MoleculeService, token).listMolecules({ orgId }));
    expect(error.code).toBe(Code.Unauthenticated);
  });

  test('of a service or of the platform opens no user method, and the reverse', async () => {
    const { orgId } = acme;
    const list = (token: string) => errorOf(catalog.as(MoleculeService, token).listMolecules({ orgId }));
    expect((await list(await serviceToken('worker'))).code).toBe(Code.Unauthenticated);
    expect((await list(await platformToken({ permissions: ALL_PERMISSIONS }))).code).toBe(Code.PermissionDenied);
    const seed = catalog
      .as(PipelineService, await userToken({ orgId, permissions: ['platform.seed'] }))
      .seedCatalog({});
    expect((await errorOf(seed)).code).toBe(Code.PermissionDenied);
  });

  test('without the permission is refused, method by method', async () => {
    const token = await userToken({ orgId: acme.orgId, permissions: ['jobs.read'] });
    const clients: Clients = {
      artifacts: catalog.as(ArtifactService, token),
      molecules: catalog.as(MoleculeService, token),
      sets: catalog.as(MoleculeSetService, token),
      pipelines: catalog.as(PipelineService, token),
    };
    for (const [method, call] of Object.entries(callsOf(clients, acme.orgId, acme))) {
      const error = await errorOf(call());
      expect([method, error.code, reasonOf(error)]).toEqual([method, Code.PermissionDenied, 'PERMISSION_MISSING']);
    }
  });
});

// Last: it takes row-level security away for good.
test('the query filters alone, with row-level security removed, find nothing of another organization', async () => {
  const { rows } = await catalog.admin.query<{ name: string }>(
    `SELECT oid::regclass::text AS name FROM pg_class WHERE relnamespace = 'catalog'::regnamespace AND relrowsecurity`,
  );
  for (const { name } of rows) await catalog.admin.query(`ALTER TABLE ${name} DISABLE ROW LEVEL SECURITY`);
  const open = await database.inOrg(acme.orgId, (tx) => tx.query('SELECT DISTINCT org_id FROM catalog.molecules'));
  expect(open.length).toBeGreaterThan(1);
  await refusedEverywhere('RESOURCE_NOT_FOUND');
  await refusedEverywhere('ORGANIZATION_NOT_FOUND');
  const { molecules } = await acme.molecules.listMolecules({ orgId: acme.orgId });
  expect(new Set(molecules.map((one) => one.orgId))).toEqual(new Set([acme.orgId]));
  const { pipelines } = await acme.pipelines.listPipelines({ orgId: acme.orgId });
  expect(new Set(pipelines.map((one) => one.orgId))).toEqual(new Set([acme.orgId]));
  const { moleculeSets } = await acme.sets.listMoleculeSets({ orgId: acme.orgId });
  expect(new Set(moleculeSets.map((one) => one.orgId))).toEqual(new Set([acme.orgId]));
  const { artifacts } = await acme.artifacts.listArtifacts({ orgId: acme.orgId });
  expect(new Set(artifacts.map((one) => one.orgId))).toEqual(new Set([acme.orgId]));
});
