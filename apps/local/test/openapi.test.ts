import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createServiceTokenSigner } from '@mad/auth';
import { uuidv7 } from '@mad/process';
import { JobState, MoleculeService } from '@mad/proto/catalog';
import { MemberService } from '@mad/proto/identity';
import { BackupService, OperationService } from '@mad/proto/provisioner';
import { CacheService } from '@mad/proto/results';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import formats from 'ajv-formats';
import { startFleet, type Fleet } from './support/fleet.ts';
import { newOrganization, signIn, type Person } from './support/people.ts';
import { ended, examplePipeline, IMATINIB, library, submit } from './support/science.ts';

// Whether the document tells the truth: every read it describes is made on a running system, and its answer held
// against the schema the document gives.

const MINUTES = 240_000;

interface Operation {
  operationId: string;
  security?: object[];
  parameters: { name: string; in: string; required?: boolean }[];
  responses: Record<string, { content?: Record<string, object> }>;
  'x-mad-audience': string;
}
interface Document {
  paths: Record<string, Record<string, Operation>>;
}

let fleet: Fleet;
let platform: Person;
let admin: Person;
let document: Document;
let ajv: Ajv2020;
/** Of reads that must be asked for something: beside their paths. */
const queryOf = ({ operationId }: Operation): string =>
  operationId === 'CacheService_ExplainCacheLookUp' ? `?job_id=${known.job_id}&item_no=1` : '';
/** What stands for the variables of paths. */
const known: Record<string, string> = { version: '1', item_no: '1', schema: 'results' };

const get = (path: string, person?: Person, headers: Record<string, string> = {}) =>
  fetch(`${fleet.url}${path}`, {
    headers: { ...(person && { authorization: `Bearer ${person.accessToken}` }), ...headers },
  });
const post = (path: string, person: Person | undefined, body: object) =>
  fetch(`${fleet.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(person && { authorization: `Bearer ${person.accessToken}` }) },
    body: JSON.stringify(body),
  });

/** A validator of a place in the document, by its JSON pointer. */
const compiled = (...steps: string[]): ValidateFunction =>
  ajv.compile({
    $ref: `openapi#/${steps.map((step) => encodeURIComponent(step.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/')}`,
  });
const answerSchema = (path: string, method: string, type = 'application/json') =>
  compiled('paths', path, method, 'responses', '200', 'content', type, 'schema');

function expectValid(validate: ValidateFunction, value: unknown, what: string): void {
  expect([what, validate(value) ? [] : validate.errors]).toEqual([what, []]);
}

beforeAll(async () => {
  fleet = await startFleet({ GATEWAY_ADDRESS_RATE: '0' });
  const { administrator } = fleet.ground.secrets;
  platform = await signIn(fleet.url, administrator);
  ({ admin } = await newOrganization(fleet.url, platform, 'acme'));
  document = (await (await get('/v1/openapi.json')).json()) as Document;
  ajv = new Ajv2020({ strict: false, allErrors: true });
  formats.default(ajv);
  for (const format of ['int64', 'uint64']) ajv.addFormat(format, true);
  ajv.addSchema(document, 'openapi');

  const moleculeSetId = await library(admin, [IMATINIB, 'CCO', 'c1ccccc1']);
  const pipelineId = await examplePipeline(admin, 'ligand-screening.json');
  const job = await submit(admin, { pipelineId, moleculeSetId, parameters: { reference: IMATINIB } });
  const other = await submit(admin, { pipelineId, moleculeSetId, parameters: { reference: 'CCO' } });
  for (const { jobId } of [job, other]) expect((await ended(admin, jobId)).state).toBe(JobState.COMPLETED);
  const { entries } = await admin.client(CacheService).listCacheEntries({ orgId: admin.orgId, pageSize: 1 });
  const made = { orgId: admin.orgId, schema: 'results' };
  const { backup } = await platform.client(BackupService).createBackup(made);
  const { operations } = await platform.client(OperationService).listOperations({ orgId: admin.orgId });
  Object.assign(known, {
    org_id: admin.orgId,
    molecule_set_id: moleculeSetId,
    pipeline_id: pipelineId,
    job_id: job.jobId,
    other_job_id: other.jobId,
    operation_id: operations[0]!.operationId,
    backup_id: backup!.backupId,
    task: entries[0]!.task,
    input_signature: entries[0]!.source!.inputSignature,
  });
}, MINUTES);

afterAll(() => fleet?.close(), MINUTES);

/** The job of this run compares and docks nothing. */
const NO_POSE = 'PoseService_GetPose';

test(
  'every read answers as the document says',
  async () => {
    const { members } = await admin.client(MemberService).listMembers({ orgId: admin.orgId });
    const { molecules } = await admin.client(MoleculeService).listMolecules({ orgId: admin.orgId });
    known.user_id = members[0]!.user!.userId;
    known.molecule_id = molecules[0]!.moleculeId;
    const read: string[] = [];
    const skipped: string[] = [];
    for (const [path, { get: operation }] of Object.entries(document.paths)) {
      if (!operation || !operation.responses['200']!.content!['application/json']) continue;
      const variables = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name!);
      if (operation.operationId === NO_POSE || !variables.every((name) => known[name] !== undefined)) {
        skipped.push(operation.operationId);
        continue;
      }
      const person = operation['x-mad-audience'] === 'platform' ? platform : admin;
      const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => known[name]!);
      const response = await get(`${filled}${queryOf(operation)}`, operation.security ? undefined : person);
      expect([path, response.status]).toEqual([path, 200]);
      expectValid(answerSchema(path, 'get'), await response.json(), path);
      read.push(operation.operationId);
    }
    expect(read.length).toBeGreaterThan(25);
    // Nothing was uploaded, erased, exported or rolled out that these could give back.
    expect(skipped.toSorted()).toEqual([
      'ArtifactService_DownloadArtifact',
      'ArtifactService_GetArtifact',
      'ErasureService_GetErasure',
      'ErasureService_VerifyErasure',
      'ExportService_GetExport',
      NO_POSE,
      'RolloutService_GetRollout',
      'RolloutService_ListRolloutRuns',
    ]);
  },
  MINUTES,
);

describe('changes', () => {
  test('answer as the document says', async () => {
    const login = await post('/v1/sessions:login', undefined, fleet.ground.secrets.administrator);
    expectValid(answerSchema('/v1/sessions:login', 'post'), await login.json(), 'login');
    const register = '/v1/organizations/{org_id}/molecules:register';
    const body = {
      requestId: uuidv7(),
      rows: [
        { smiles: 'CCN', name: 'ethylamine' },
        { smiles: 'C1CC', name: 'open' },
      ],
    };
    const request = compiled('paths', register, 'post', 'requestBody', 'content', 'application/json', 'schema');
    expectValid(request, body, 'the body');
    const answer = (await (await post(register.replace('{org_id}', admin.orgId), admin, body)).json()) as {
      rejected: unknown[];
    };
    expect(answer.rejected).toHaveLength(1);
    expectValid(answerSchema(register, 'post'), answer, register);
  });

  test('what the document forbids is refused, naming the field', async () => {
    const create = '/v1/organizations/{org_id}/jobs';
    const request = compiled('paths', create, 'post', 'requestBody', 'content', 'application/json', 'schema');
    const problem = compiled('components', 'schemas', 'Problem');
    const good = { requestId: uuidv7(), pipelineId: known.pipeline_id, moleculeSetId: known.molecule_set_id };
    const bad: [object, string][] = [
      [{ ...good, requestId: 'mine' }, 'request_id'],
      [{ ...good, pipelineId: undefined }, 'pipeline_id'],
      [{ ...good, name: 'x'.repeat(256) }, 'name'],
      [{ ...good, version: -1 }, 'version'],
    ];
    expectValid(request, good, 'a good body');
    for (const [body, field] of bad) {
      const sent = JSON.parse(JSON.stringify(body)) as object;
      expect([field, request(sent)]).toEqual([field, false]);
      const response = await post(create.replace('{org_id}', admin.orgId), admin, sent);
      expect([field, response.status]).toEqual([field, 400]);
      const found = (await response.json()) as { errors: { field: string }[] };
      expectValid(problem, found, field);
      expect(found.errors.map((one) => one.field)).toContain(field);
    }
  });
});

test('errors are the problems of the document', async () => {
  const validate = compiled('components', 'schemas', 'Problem');
  const organization = `/v1/organizations/${admin.orgId}`;
  const cases: [string, Person | undefined, number, string | undefined][] = [
    [`${organization}/jobs`, undefined, 401, 'TOKEN_MISSING'],
    [`${organization}/jobs/${uuidv7()}`, admin, 404, 'RESOURCE_NOT_FOUND'],
    [`/v1/organizations/${uuidv7()}/jobs`, admin, 404, 'ORGANIZATION_NOT_FOUND'],
    ['/v1/platform/servers', admin, 401, undefined],
    [`${organization}/jobs?page_size=5000`, admin, 400, undefined],
  ];
  for (const [path, person, status, reason] of cases) {
    const response = await get(path, person);
    const found = (await response.json()) as { reason?: string };
    expectValid(validate, found, path);
    if (reason !== undefined) expect([path, response.status, found.reason]).toEqual([path, status, reason]);
  }
});

test('a service token is nobody here', async () => {
  const privateJwk = fleet.ground.secrets.signingKeys.catalog.privateJwk;
  const accessToken = await createServiceTokenSigner({ service: 'catalog', privateJwk })();
  const response = await get(`/v1/organizations/${admin.orgId}/jobs`, { ...admin, accessToken });
  expect(response.status).toBe(401);
});

test('a stream: each line and each event, resumed behind the last one seen', async () => {
  const path = '/v1/organizations/{org_id}/jobs/{job_id}:watch';
  const url = path.replace('{org_id}', admin.orgId).replace('{job_id}', known.job_id!);
  const lines = (await (await get(url, admin)).text()).trimEnd().split('\n');
  const validate = answerSchema(path, 'get', 'application/x-ndjson');
  expect(lines.length).toBeGreaterThan(0);
  for (const line of lines) expectValid(validate, JSON.parse(line), line);

  const events = async (headers: Record<string, string>) => {
    const text = await (await get(url, admin, { accept: 'text/event-stream', ...headers })).text();
    const blocks = text.split('\n\n').filter((block) => /^(id|data):/.test(block));
    return blocks.flatMap((block) => {
      const data = JSON.parse(/^data: (.*)$/m.exec(block)![1]!) as { events: { seqNo: string }[] };
      const content = compiled('components', 'schemas', 'mad.results.v1.WatchJobResponse');
      expectValid(content, data, block);
      expect(/^id: (.*)$/m.exec(block)?.[1]).toBe(data.events.at(-1)?.seqNo);
      return data.events.map(({ seqNo }) => Number(seqNo));
    });
  };
  const all = await events({});
  expect(all).toEqual(all.map((_, i) => i + 1));
  expect(all.length).toBeGreaterThan(3);
  expect(await events({ 'last-event-id': '2' })).toEqual(all.slice(2));
});
