import { readFile } from 'node:fs/promises';
import { fromJson, type JsonValue } from '@bufbuild/protobuf';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Code, type Client } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { PipelineService, PipelineSpecSchema } from '@mad/proto/catalog';
import { reasonOf, violationsOf } from '@mad/rpc';
import { platformToken } from '@mad/testing';
import { errorOf } from './errors.ts';
import { startTestCatalog, type TestCatalog } from './harness.ts';

const SCREENING = {
  version: '1',
  parameters: { reference: { type: 'string' } },
  tasks: [
    { id: 'profile', task: 'rdkit.properties', inputs: { molecules: 'job.molecules' } },
    {
      id: 'rank',
      task: 'rdkit.similarity',
      inputs: { molecules: 'profile.molecules' },
      parameters: { reference: '${reference}' },
    },
  ],
};

let catalog: TestCatalog;
let acme: Client<typeof PipelineService>;
let globex: Client<typeof PipelineService>;
beforeAll(async () => {
  catalog = await startTestCatalog();
  acme = await catalog.member(PipelineService, catalog.acme);
  globex = await catalog.member(PipelineService, catalog.globex);
});
afterAll(() => catalog.close());

const ofAcme = () => ({ orgId: catalog.acme.orgId, requestId: uuidv7() });

async function newPipeline(name: string = uuidv7()): Promise<string> {
  const { pipeline } = await acme.createPipeline({ ...ofAcme(), name });
  return pipeline!.pipelineId;
}

async function newDraft(spec: object = SCREENING): Promise<string> {
  const pipelineId = await newPipeline();
  await acme.createPipelineVersion({ ...ofAcme(), pipelineId, spec });
  return pipelineId;
}

describe('pipelines', () => {
  test('have unique names, whatever characters are in them', async () => {
    const name = `Robert'); DROP TABLE catalog.pipelines; -- "$1" \u0416`;
    const pipelineId = await newPipeline(name);
    const { orgId } = catalog.acme;
    expect((await acme.getPipeline({ orgId, pipelineId })).pipeline).toMatchObject({ name, latestVersion: 0 });
    const { pipelines } = await acme.listPipelines({ orgId, name });
    expect(pipelines.map((one) => one.pipelineId)).toEqual([pipelineId]);
    const error = await errorOf(acme.createPipeline({ ...ofAcme(), name }));
    expect([error.code, error.rawMessage]).toEqual([Code.AlreadyExists, 'name: is already taken']);
    const theirs = await globex.createPipeline({ orgId: catalog.globex.orgId, requestId: uuidv7(), name });
    expect(theirs.pipeline!.name).toBe(name);
  });

  test.each([' ', 'a\tb', 'a\u0000b', ''])('the name %j is refused', async (name) => {
    const error = await errorOf(acme.createPipeline({ ...ofAcme(), name }));
    expect(violationsOf(error).map(({ field }) => field)).toEqual(['name']);
  });

  test('a page token of another list is refused', async () => {
    const { orgId } = catalog.acme;
    await newPipeline();
    const { nextPageToken } = await acme.listPipelines({ orgId, pageSize: 1 });
    for (const call of [
      () => acme.listPipelines({ orgId, pageToken: nextPageToken, name: 'x' }),
      () => acme.listTaskDefinitions({ orgId, pageToken: nextPageToken }),
      () => acme.listPipelineTemplates({ orgId, pageToken: nextPageToken }),
    ]) {
      const error = await errorOf(call());
      expect(violationsOf(error).map(({ field }) => field)).toEqual(['page_token']);
    }
  });
});

describe('versions', () => {
  test('are drafts until published, and then pinned to the task definitions of the day', async () => {
    const { orgId } = catalog.acme;
    const pipelineId = await newPipeline();
    const made = await acme.createPipelineVersion({ ...ofAcme(), pipelineId, spec: SCREENING });
    expect(made.pipelineVersion).toMatchObject({ version: 1, published: false });
    expect(made.pipelineVersion!.spec!.tasks.map((one) => one.taskVersion)).toEqual(['', '']);
    const published = await acme.publishPipelineVersion({ ...ofAcme(), pipelineId, version: 1 });
    expect(published.pipelineVersion).toMatchObject({ version: 1, published: true });
    expect(published.pipelineVersion!.spec!.tasks.map((one) => one.taskVersion)).toEqual(['1', '1']);
    const read = await acme.getPipelineVersion({ orgId, pipelineId, version: 1 });
    expect(read.pipelineVersion).toEqual(published.pipelineVersion);
    expect((await acme.getPipeline({ orgId, pipelineId })).pipeline!.latestVersion).toBe(1);
  });

  test('count up, also when several are made at once', async () => {
    const pipelineId = await newPipeline();
    const made = await Promise.all(
      Array.from({ length: 6 }, () => acme.createPipelineVersion({ ...ofAcme(), pipelineId, spec: SCREENING })),
    );
    const numbers = made.map(({ pipelineVersion }) => pipelineVersion!.version).toSorted((a, b) => a - b);
    expect(numbers).toEqual([1, 2, 3, 4, 5, 6]);
    const { orgId } = catalog.acme;
    const first = await acme.listPipelineVersions({ orgId, pipelineId, pageSize: 4 });
    const rest = await acme.listPipelineVersions({ orgId, pipelineId, pageToken: first.nextPageToken });
    const listed = [...first.pipelineVersions, ...rest.pipelineVersions];
    expect(listed.map((one) => one.version)).toEqual([6, 5, 4, 3, 2, 1]);
  });

  test('are published once; the same request gets its first answer', async () => {
    const pipelineId = await newDraft();
    const request = { ...ofAcme(), pipelineId, version: 1 };
    const first = await acme.publishPipelineVersion(request);
    expect(await acme.publishPipelineVersion(request)).toEqual(first);
    const error = await errorOf(acme.publishPipelineVersion({ ...request, requestId: uuidv7() }));
    expect([error.code, reasonOf(error)]).toEqual([Code.FailedPrecondition, 'ALREADY_PUBLISHED']);
  });

  test('that are published do not change, whoever writes', async () => {
    const pipelineId = await newDraft();
    const change = `UPDATE catalog.pipeline_versions SET spec = spec || '{"x": 1}' WHERE pipeline_id = $1`;
    await catalog.admin.query(change, [pipelineId]);
    await catalog.admin.query(`UPDATE catalog.pipeline_versions SET spec = spec - 'x' WHERE pipeline_id = $1`, [
      pipelineId,
    ]);
    await acme.publishPipelineVersion({ ...ofAcme(), pipelineId, version: 1 });
    await expect(catalog.admin.query(change, [pipelineId])).rejects.toThrow('does not change');
    const deprecate =
      'UPDATE catalog.pipeline_versions SET deprecated_at = now() WHERE pipeline_id = $1 RETURNING deprecated_at';
    expect((await catalog.admin.query(deprecate, [pipelineId])).rows[0].deprecated_at).not.toBeNull();
  });

  test.each([
    [
      'a cycle',
      [
        { id: 'a', task: 'rdkit.properties', inputs: { molecules: 'b.molecules' } },
        { id: 'b', task: 'rdkit.properties', inputs: { molecules: 'a.molecules' } },
      ],
      'spec.tasks',
      'a → b → a',
    ],
    [
      'an unknown task',
      [{ id: 'a', task: `rdkit'; --`, inputs: { molecules: 'job.molecules' } }],
      'spec.tasks[0].task',
      'there is no task',
    ],
    [
      'an unknown parameter',
      [{ id: 'a', task: 'rdkit.properties', inputs: { molecules: 'job.molecules' }, parameters: { depth: 1 } }],
      'spec.tasks[0].parameters.depth',
      'has no parameter',
    ],
    [
      'a type mismatch',
      [
        { id: 'a', task: 'rdkit.properties', inputs: { molecules: 'job.molecules' } },
        { id: 'b', task: 'rdkit.properties', inputs: { molecules: 'a.properties' } },
      ],
      'spec.tasks[1].inputs.molecules',
      'takes molecules, not properties',
    ],
    ['an id that is none', [{ id: 'A b', task: 'rdkit.properties' }], 'spec.tasks[0].id', 'pattern'],
    ['no tasks', [], 'spec.tasks', '1 item'],
  ])('with %s are refused', async (_what, tasks, field, words) => {
    const pipelineId = await newPipeline();
    const error = await errorOf(acme.createPipelineVersion({ ...ofAcme(), pipelineId, spec: { version: '1', tasks } }));
    expect(error.code).toBe(Code.InvalidArgument);
    const found = violationsOf(error).find((one) => one.field === field);
    expect(found?.description).toContain(words);
  });
});

describe('what comes with the product', () => {
  test('is listed by name, page by page', async () => {
    const { orgId } = catalog.globex;
    const names: string[] = [];
    let pageToken = '';
    do {
      const page = await globex.listTaskDefinitions({ orgId, pageSize: 2, pageToken });
      names.push(...page.taskDefinitions.map((one) => one.taskId));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(names).toEqual(['rdkit.properties', 'rdkit.similarity', 'vina.dock']);
    const { taskDefinitions } = await globex.listTaskDefinitions({ orgId });
    expect(taskDefinitions[2]).toMatchObject({
      engine: 'vina@1.2.3',
      scoreUnits: 'kcal/mol',
      lowerIsBetter: true,
      deterministic: true,
      orgId: '',
    });
    expect(taskDefinitions[1]).toMatchObject({ scoreUnits: 'tanimoto', lowerIsBetter: false });
    expect(taskDefinitions[1]!.engine).toMatch(/^rdkit@\d{4}\./);
    const { pipelineTemplates } = await globex.listPipelineTemplates({ orgId });
    expect(pipelineTemplates.map((one) => one.name)).toEqual(['Docking', 'Ligand-based screening', 'Property profile']);
  });

  test('every template can be taken as it is', async () => {
    const { pipelineTemplates } = await acme.listPipelineTemplates({ orgId: catalog.acme.orgId });
    for (const { spec } of pipelineTemplates) {
      const pipelineId = await newPipeline();
      await acme.createPipelineVersion({ ...ofAcme(), pipelineId, spec });
      await acme.publishPipelineVersion({ ...ofAcme(), pipelineId, version: 1 });
    }
  });

  test('the examples are good pipelines', async () => {
    for (const file of ['ligand-screening.json', 'cyclodextrin-docking.json']) {
      const text = await readFile(new URL(`../../../examples/${file}`, import.meta.url), 'utf8');
      const { name, description, spec } = JSON.parse(text) as { name: string; description: string; spec: JsonValue };
      const { pipeline } = await acme.createPipeline({ ...ofAcme(), name, description });
      const { pipelineId } = pipeline!;
      await acme.createPipelineVersion({ ...ofAcme(), pipelineId, spec: fromJson(PipelineSpecSchema, spec) });
      const { pipelineVersion } = await acme.publishPipelineVersion({ ...ofAcme(), pipelineId, version: 1 });
      expect(pipelineVersion!.published).toBe(true);
    }
  });

  test('is seeded once, and brought up to date when the product changes', async () => {
    const platform = catalog.as(PipelineService, await platformToken({ permissions: ['platform.seed'] }));
    expect(await platform.seedCatalog({})).toMatchObject({ created: 0, existing: 6 });
    await catalog.admin.query(`DELETE FROM catalog.pipeline_templates WHERE name = 'Docking'`);
    await catalog.admin.query(
      `UPDATE catalog.task_definitions SET engine = 'rdkit@2000.01.1' WHERE task_id = 'rdkit.properties'`,
    );
    expect(await platform.seedCatalog({})).toMatchObject({ created: 1, existing: 5 });
    const { rows } = await catalog.admin.query(
      `SELECT engine FROM catalog.task_definitions WHERE task_id = 'rdkit.properties'`,
    );
    expect(rows[0].engine).not.toBe('rdkit@2000.01.1');
    expect((await errorOf(acme.seedCatalog({}))).code).toBe(Code.PermissionDenied);
  });
});

test('published versions come from the cache, each organization’s its own', async () => {
  const { orgId } = catalog.acme;
  const pipelineId = await newDraft();
  await acme.publishPipelineVersion({ ...ofAcme(), pipelineId, version: 1 });
  for (let call = 0; call < 3; call++) await acme.getPipelineVersion({ orgId, pipelineId, version: 1 });
  expect(await catalog.metrics.text()).toMatch(
    /cache_requests_total\{cache="catalog_pipeline_version",outcome="hit",service="catalog"\} [1-9]/,
  );
  const theirs = errorOf(globex.getPipelineVersion({ orgId: catalog.globex.orgId, pipelineId, version: 1 }));
  expect((await theirs).code).toBe(Code.NotFound);
});

test('a public pipeline is readable by every organization, its drafts are not', async () => {
  const pipelineId = await newDraft();
  await acme.publishPipelineVersion({ ...ofAcme(), pipelineId, version: 1 });
  await acme.createPipelineVersion({ ...ofAcme(), pipelineId, spec: SCREENING });
  await catalog.admin.query(`UPDATE catalog.pipelines SET visibility = 'public' WHERE pipeline_id = $1`, [pipelineId]);
  const { orgId } = catalog.globex;
  expect((await globex.getPipeline({ orgId, pipelineId })).pipeline!.pipelineId).toBe(pipelineId);
  expect((await globex.getPipelineVersion({ orgId, pipelineId, version: 1 })).pipelineVersion!.published).toBe(true);
  expect((await errorOf(globex.getPipelineVersion({ orgId, pipelineId, version: 2 }))).code).toBe(Code.NotFound);
  const { pipelineVersions } = await globex.listPipelineVersions({ orgId, pipelineId });
  expect(pipelineVersions.map((one) => one.version)).toEqual([1]);
  const write = globex.createPipelineVersion({ orgId, requestId: uuidv7(), pipelineId, spec: SCREENING });
  expect((await errorOf(write)).code).toBe(Code.NotFound);
});
