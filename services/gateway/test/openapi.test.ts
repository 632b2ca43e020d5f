import { beforeAll, describe, expect, test } from '@jest/globals';
import { hasOption, type DescService } from '@bufbuild/protobuf';
import { Validator } from '@seriousme/openapi-schema-validator';
import { access, Audience } from '@mad/proto/access';
import { accessRuleOf } from '@mad/auth';
import * as catalog from '@mad/proto/catalog';
import { readDescriptorSet } from '@mad/proto/descriptors';
import { http } from '@mad/proto/http';
import * as identity from '@mad/proto/identity';
import * as provisioner from '@mad/proto/provisioner';
import * as results from '@mad/proto/results';
import { openApiDocument } from '../src/openapi/document.ts';

interface Operation {
  operationId: string;
  tags: string[];
  summary: string;
  description: string;
  parameters: { name: string; in: string; required?: boolean; description?: string; schema: object }[];
  requestBody?: { required: boolean; content: { 'application/json': { schema: { $ref: string } } } };
  responses: Record<string, { content?: Record<string, { schema: object }>; $ref?: string }>;
  security?: object[];
  'x-mad-permission'?: string;
}
interface Schema {
  description?: string;
  properties?: Record<string, { description?: string; $ref?: string }>;
  required?: string[];
  enum?: string[];
}
interface Document {
  info: { version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema>; responses: object };
}

const services = [identity, catalog, results, provisioner]
  .flatMap((contract) => Object.values<unknown>(contract))
  .filter((value): value is DescService => (value as DescService | null)?.kind === 'service');
const methods = services.flatMap((service) => service.methods);

let document: Document;
let operations: Operation[];
beforeAll(() => {
  document = openApiDocument(services, readDescriptorSet()) as unknown as Document;
  operations = Object.values(document.paths).flatMap((path) => Object.values(path));
});
const operation = (id: string) => operations.find(({ operationId }) => operationId === id)!;
const schema = (name: string) => document.components.schemas[name]!;

test('is valid OpenAPI 3.1', async () => {
  const { valid, errors } = await new Validator().validate(structuredClone(document) as never);
  expect(errors).toBeUndefined();
  expect(valid).toBe(true);
  expect(document.info.version).toMatch(/^\d+\.\d+\.\d+$/);
});

test('every reference leads somewhere', () => {
  const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)].map(([, path]) => path!);
  expect(references.length).toBeGreaterThan(500);
  for (const path of new Set(references)) {
    const found = path.split('/').reduce<unknown>((node, key) => (node as Record<string, unknown>)?.[key], document);
    expect([path, typeof found]).toEqual([path, 'object']);
  }
});

test('has every annotated RPC, and no other', () => {
  const annotated = methods.filter((method) => hasOption(method, http));
  expect(operations.map(({ operationId }) => operationId).toSorted()).toEqual(
    annotated.map(({ parent, name }) => `${parent.name}_${name}`).toSorted(),
  );
});

test('nothing goes without its comment', () => {
  const bare = operations.filter(({ summary, operationId }) => operationId.endsWith(`_${summary}`));
  expect(bare.map(({ operationId }) => operationId)).toEqual([]);
  const parameters = operations.flatMap((one) => one.parameters.filter(({ description }) => !description));
  expect(parameters).toEqual([]);
  for (const [name, { properties = {} }] of Object.entries(document.components.schemas)) {
    const silent = Object.keys(properties).filter((key) => !properties[key]!.description);
    // The details of errors are google's, and explained in Problem.
    if (!name.startsWith('google.')) expect([name, silent]).toEqual([name, []]);
  }
});

test('says of every operation who may call it', () => {
  for (const method of methods.filter((one) => hasOption(one, http))) {
    const rule = accessRuleOf(method)!;
    const { security, ...found } = operation(`${method.parent.name}_${method.name}`);
    if (rule.audience === Audience.PUBLIC) expect(security).toEqual([]);
    else {
      expect(security).toBeUndefined();
      expect(found['x-mad-permission']).toBe(rule.permission);
      if (rule.permission !== 'self') expect(found.description).toContain(`\`${rule.permission}\``);
    }
  }
  expect(methods.some((method) => hasOption(method, access))).toBe(true);
});

describe('what a client reads of it', () => {
  test('path and query are parameters with their constraints', () => {
    expect(operation('JobRunService_ListHits').parameters).toMatchObject([
      { name: 'org_id', in: 'path', required: true, schema: { type: 'string', format: 'uuid' } },
      { name: 'job_id', in: 'path', required: true, description: 'The job.' },
      { name: 'task_id', in: 'query', schema: { maxLength: 63 } },
      { name: 'page_size', in: 'query', schema: { type: 'integer', minimum: 0, maximum: 1000 } },
      { name: 'page_token', in: 'query', schema: { maxLength: 2000 } },
      { name: 'filter', in: 'query', schema: { maxLength: 1000 } },
      { name: 'best_per_molecule', in: 'query', schema: { type: 'boolean' } },
      { name: 'include_best_pose', in: 'query', schema: { type: 'boolean' } },
    ]);
  });

  test('a body has what the path does not, and what must be given is required', () => {
    const { requestBody } = operation('JobService_CreateJob');
    expect(requestBody).toMatchObject({ required: true });
    const body = schema('mad.catalog.v1.CreateJobRequest');
    expect(Object.keys(body.properties!)).not.toContain('orgId');
    expect(body.required).toEqual(['requestId', 'pipelineId']);
    expect(body.properties).toMatchObject({ moleculeIds: { type: 'array', maxItems: 10_000 } });
  });

  test('answers carry every field that cannot be absent; 64 bits are strings, enums names', () => {
    const event = schema('mad.results.v1.JobEvent');
    expect(event.required).toContain('seqNo');
    expect(event.properties).toMatchObject({ seqNo: { type: 'string', format: 'int64' } });
    expect(schema('mad.catalog.v1.JobState').enum).toContain('JOB_STATE_COMPLETED');
    const item = schema('mad.results.v1.WorkItem');
    expect(item.properties).toHaveProperty('score');
    expect(item.required).not.toContain('score');
  });

  test('streams are NDJSON and server-sent events, resumed where they can be', () => {
    const { responses, parameters } = operation('JobRunService_WatchJob');
    expect(Object.keys(responses['200']!.content!)).toEqual(['application/x-ndjson', 'text/event-stream']);
    expect(parameters).toContainEqual(expect.objectContaining({ name: 'Last-Event-ID', in: 'header' }));
  });

  test('errors are problems', () => {
    const statuses = Object.keys(operation('JobService_CreateJob').responses);
    expect(statuses).toEqual(['200', '400', '401', '403', '404', '409', '413', '415', '429', '500', '503', '504']);
    expect(document.components.responses).toMatchObject({
      Problem404: { content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } } },
    });
    expect(Object.keys(schema('Problem').properties!)).toContain('reason');
  });
});
