import { readFile } from 'node:fs/promises';
import { create, type JsonObject } from '@bufbuild/protobuf';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code, ConnectError } from '@connectrpc/connect';
import { memoryCache } from '@mad/cache';
import { openChemistry, type Chemistry } from '@mad/chemistry';
import type { Database } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { ArtifactPurpose, ArtifactService, PipelineService, type PipelineSpec } from '@mad/proto/catalog';
import { TaskPlanSchema } from '@mad/proto/results';
import { checkMessage, violationsOf } from '@mad/rpc';
import type { CatalogContext } from '../src/context.ts';
import { openCatalogDatabase } from '../src/index.ts';
import { planTasks } from '../src/plan.ts';
import { schemaValidator } from '../src/schema-validator.ts';
import { taskDefinitionsIn } from '../src/task-definitions.ts';
import { startTestCatalog, type TestCatalog } from './harness.ts';
import { silent } from './neighbours.ts';

let catalog: TestCatalog;
let database: Database;
let chemistry: Chemistry;
let context: CatalogContext;
const specs = new Map<string, PipelineSpec>();
const artifacts: Record<string, string> = {};

beforeAll(async () => {
  catalog = await startTestCatalog();
  database = await openCatalogDatabase(catalog.config.database);
  chemistry = openChemistry({ workers: 1 });
  context = {
    database,
    chemistry,
    rdkitVersion: await chemistry.version(),
    schemaValidator: schemaValidator(),
    taskDefinitions: taskDefinitionsIn(database, { cache: memoryCache(), logger: silent }),
  } as CatalogContext;
  const { orgId } = catalog.acme;
  const pipelines = await catalog.member(PipelineService, catalog.acme);
  const { pipelineTemplates } = await pipelines.listPipelineTemplates({ orgId });
  for (const { category, spec } of pipelineTemplates) specs.set(category, spec!);
  const host = await readFile(new URL('../../../examples/beta-cyclodextrin.pdbqt', import.meta.url));
  const files = await catalog.member(ArtifactService, catalog.acme);
  const put = async (purpose: ArtifactPurpose) => {
    const { artifact } = await files.createArtifact({
      orgId,
      requestId: uuidv7(),
      purpose,
      name: 'host',
      content: host,
    });
    return artifact!;
  };
  artifacts['receptor'] = (await put(ArtifactPurpose.RECEPTOR)).artifactId;
  artifacts['other'] = (await put(ArtifactPurpose.OTHER)).artifactId;
});
afterAll(async () => {
  await chemistry.close();
  await database.close();
  await catalog.close();
});

const plan = (category: string, parameters: JsonObject, orgId = catalog.acme.orgId) =>
  planTasks(context, orgId, specs.get(category)!, parameters);

async function fieldsRefused(category: string, parameters: JsonObject, orgId?: string): Promise<string[]> {
  const error = await plan(category, parameters, orgId).then(
    () => undefined,
    (thrown: unknown) => ConnectError.from(thrown),
  );
  expect(error?.code).toBe(Code.InvalidArgument);
  return violationsOf(error).map(({ field }) => field);
}

test('another spelling of a reference is the same plan; what the user gave stays as given', async () => {
  const [one, two] = [await plan('screening', { reference: 'OCC' }), await plan('screening', { reference: 'C(O)C' })];
  expect(one.tasks).toEqual(two.tasks);
  expect(one.tasks[0]).toMatchObject({ parameters: { reference: 'CCO' }, rdkitVersion: context.rdkitVersion });
  expect(two.parameters).toEqual({ reference: 'C(O)C' });
});

test('a docking job names its receptor by content, and is a plan that results takes', async () => {
  const box = { center_x: 1.363, center_y: -1.742, center_z: 2.94 };
  const planned = await plan('docking', { ...box, receptor: artifacts['receptor']! });
  const [row] = (
    await catalog.admin.query(`SELECT sha256 FROM catalog.artifacts WHERE artifact_id = $1`, [artifacts['receptor']])
  ).rows as { sha256: string }[];
  expect(planned.tasks).toMatchObject([
    {
      taskId: 'dock',
      task: 'vina.dock',
      engine: 'vina@1.2.3',
      parameters: { ...box, seed: 42, exhaustiveness: 8, num_modes: 9, energy_range: 3, replicas: 1 },
      artifacts: [{ parameter: 'receptor', artifactId: artifacts['receptor'], sha256: row!.sha256 }],
      memoryMb: 600,
      lowerIsBetter: true,
      scoreUnits: 'kcal/mol',
    },
  ]);
  for (const task of planned.tasks) checkMessage(TaskPlanSchema, create(TaskPlanSchema, task));
});

test('names the parameter that is wrong', async () => {
  const box = { center_x: 0, center_y: 0, center_z: 0 };
  expect(await fieldsRefused('screening', { reference: 'C1CC' })).toEqual(['parameters.reference']);
  expect(await fieldsRefused('screening', { reference: '' })).toEqual(['parameters.reference']);
  expect(await fieldsRefused('screening', { reference: 'C\u0000' })).toEqual(['parameters']);
  expect(await fieldsRefused('screening', { reference: 'C', "x'; --": 1 })).toEqual([`parameters.x'; --`]);
  expect(await fieldsRefused('screening', {})).toEqual(['parameters.reference']);
  const docking = (change: JsonObject) =>
    fieldsRefused('docking', { ...box, receptor: artifacts['receptor']!, ...change });
  expect(await docking({ seed: 0 })).toEqual(['parameters.seed']);
  expect(await docking({ size_x: 61 })).toEqual(['parameters.size_x']);
  expect(await docking({ receptor: uuidv7() })).toEqual(['parameters.receptor']);
  expect(await docking({ receptor: artifacts['other']! })).toEqual(['parameters.receptor']);
});

test('finds no artifact of another organization', async () => {
  const box = { center_x: 0, center_y: 0, center_z: 0, receptor: artifacts['receptor']! };
  expect(await fieldsRefused('docking', box, catalog.globex.orgId)).toEqual(['parameters.receptor']);
});
