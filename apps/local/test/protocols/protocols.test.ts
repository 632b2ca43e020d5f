import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { DescMethod, DescService, JsonObject, JsonValue } from '@bufbuild/protobuf';
import { accessRuleOf } from '@mad/auth';
import { Audience } from '@mad/proto/access';
import * as catalog from '@mad/proto/catalog';
import * as health from '@mad/proto/health';
import * as identity from '@mad/proto/identity';
import * as provisioner from '@mad/proto/provisioner';
import * as reflection from '@mad/proto/reflection';
import * as results from '@mad/proto/results';
import * as tenancy from '@mad/proto/tenancy';
import { canonical } from './answer.ts';
import type { Answer, Call, Case, ExpectedError, ProtocolClient } from './case.ts';
import { catalogCases } from './cases/catalog.ts';
import { identityCases } from './cases/identity.ts';
import { provisionerCases } from './cases/provisioner.ts';
import { refusalCases } from './cases/refusals.ts';
import { resultsCases } from './cases/results.ts';
import { toolCases } from './cases/tools.ts';
import { browserClients, chromium } from './clients/browser.ts';
import { bufCurlClients } from './clients/buf-curl.ts';
import { curlClients } from './clients/curl.ts';
import { grpcJsClient } from './clients/grpc-js.ts';
import { buf, firstThatRuns, run } from './clients/program.ts';
import { pythonClient, pythonWithGrpc } from './clients/python.ts';
import { startWorld, type World } from './world.ts';

// Every service, asked by every kind of client that an adopting team may bring: each must see the same.

const SLOW = 180_000;
const CASES = [...identityCases, ...catalogCases, ...resultsCases, ...provisionerCases, ...toolCases, ...refusalCases];
/** The edge has no way to what services ask each other. */
const NOT_AT_THE_EDGE: ExpectedError = { code: 'unimplemented' };
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';

const programs = { chromium: chromium(), python: pythonWithGrpc(), curl: firstThatRuns(['curl'], ['--version']) };
/** Clients by name, with the program that is missing for them here. */
const CLIENTS: Record<string, string | undefined> = {
  '@grpc/grpc-js': undefined,
  'buf curl, gRPC': undefined,
  'buf curl, gRPC-web': undefined,
  'buf curl, Connect': undefined,
  'curl, Connect JSON': programs.curl ? undefined : 'no curl',
  'curl, REST': programs.curl ? undefined : 'no curl',
  'browser, Connect': programs.chromium ? undefined : 'no chromium',
  'browser, gRPC-web': programs.chromium ? undefined : 'no chromium',
  'Python, grpcio': programs.python ? undefined : 'no Python with grpcio',
};

let world: World;
let folder: string;
let clients: ProtocolClient[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mad-descriptors-'));
  const descriptors = join(folder, 'mad.binpb');
  const [built, started] = await Promise.all([run(buf(), ['build', 'proto', '-o', descriptors]), startWorld()]);
  world = started;
  expect(built).toMatchObject({ code: 0 });
  clients = [grpcJsClient(), ...bufCurlClients(descriptors), ...(programs.curl ? curlClients() : [])];
  if (programs.python) clients.push(pythonClient(programs.python, descriptors));
  const gateway = world.addressOf(catalog.JobService, 'gateway');
  if (programs.chromium) clients.push(...(await browserClients(programs.chromium, gateway)));
}, SLOW);

afterAll(async () => {
  for (const client of clients) await client.close();
  await world?.close();
  await rm(folder, { recursive: true, force: true });
}, SLOW);

const methodOf = ({ service, method }: Case): DescMethod => service.methods.find(({ name }) => name === method)!;
const isForServices = (method: DescMethod): boolean => accessRuleOf(method)?.audience === Audience.SERVICE;

function callOf(one: Case, client: ProtocolClient): Call {
  const authorization = world.authorization(one.as);
  return {
    name: one.name,
    method: methodOf(one),
    address: world.addressOf(one.service, client.at),
    requests: [one.request?.(world) ?? {}].flat() as JsonObject[],
    headers: {
      traceparent: `00-${TRACE}-00f067aa0ba902b7-01`,
      ...(authorization === undefined ? {} : { authorization }),
    },
    timeoutMs: one.timeoutMs,
  };
}

/** Makes all calls a client can make, some at a time. */
async function callAll(client: ProtocolClient): Promise<Map<Case, Answer | Error>> {
  const answers = new Map<Case, Answer | Error>();
  const left = CASES.filter((one) => client.cannot(callOf(one, client)) === undefined);
  const work = async (): Promise<void> => {
    for (let one = left.shift(); one; one = left.shift()) {
      answers.set(one, await client.call(callOf(one, client)).catch((error: Error) => error));
    }
  };
  await Promise.all(Array.from({ length: Math.min(client.parallel, left.length) }, work));
  return answers;
}

const found = (answer: Answer, type: string): JsonObject | undefined =>
  answer.details.find((detail) => detail['@type'] === `type.googleapis.com/google.rpc.${type}`);

function expectError(answer: Answer, { code, message, reason, metadata, fields }: ExpectedError): void {
  expect(answer).toMatchObject({ code, ...(message === undefined ? {} : { message }) });
  if (reason !== undefined) expect(found(answer, 'ErrorInfo')).toMatchObject({ reason, domain: 'mad' });
  if (metadata !== undefined) expect(found(answer, 'ErrorInfo')).toMatchObject({ metadata });
  if (fields !== undefined) {
    const violations = found(answer, 'BadRequest')?.fieldViolations as { field: string }[] | undefined;
    expect(violations?.map(({ field }) => field)).toEqual(fields);
  }
}

/** What the first client was answered, which every other must be answered too. */
const first = new Map<Case, JsonValue[]>();

describe.each(Object.entries(CLIENTS))('%s', (name, missing) => {
  let client: ProtocolClient;
  let answers: Map<Case, Answer | Error>;
  const judged = new Set<Case>();
  beforeAll(async () => {
    if (missing !== undefined) return;
    client = clients.find((one) => one.name === name)!;
    answers = await callAll(client);
  }, SLOW);

  (missing === undefined ? test : test.skip).each(CASES.map((one) => [one.name, one] as const))(
    '%s',
    async (_name, one) => {
      if (!answers.has(one)) {
        expect(client.cannot(callOf(one, client))).toEqual(expect.any(String));
        return;
      }
      // A test that is run once more asks once more.
      const answer = judged.has(one) ? await client.call(callOf(one, client)) : answers.get(one)!;
      judged.add(one);
      if (answer instanceof Error) throw answer;
      if (client.at === 'gateway') expect(answer.traceId).toBe(TRACE);
      if (client.at === 'gateway' && isForServices(methodOf(one))) {
        expectError(answer, NOT_AT_THE_EDGE);
        expect(answer.responses).toEqual([]);
        return;
      }
      expectError(answer, one.error ?? { code: 'ok', message: '' });
      const responses = answer.responses.map((response) => canonical(methodOf(one), response));
      const wanted = one.responses?.(world) ?? [];
      expect(one.error === undefined ? responses : responses.slice(0, wanted.length)).toMatchObject(wanted);
      if (one.changes) return;
      if (first.has(one)) expect(responses).toEqual(first.get(one));
      else first.set(one, responses);
    },
  );
});

describe('the table', () => {
  const contracts = [identity, catalog, results, provisioner, tenancy, health, reflection];
  const services = contracts
    .flatMap((contract) => Object.values(contract) as unknown[])
    .filter((one): one is DescService => (one as { kind?: string }).kind === 'service');

  test('names every service with a call that is answered', () => {
    const answered = new Set(CASES.filter((one) => one.responses).map(({ service }) => service.typeName));
    expect(services.map(({ typeName }) => typeName).filter((typeName) => !answered.has(typeName))).toEqual([]);
  });

  test('names every stream', () => {
    const named = new Set(CASES.map(methodOf));
    const streams = services.flatMap(({ methods }) => methods).filter(({ methodKind }) => methodKind !== 'unary');
    expect(streams.filter((method) => !named.has(method)).map(String)).toEqual([]);
  });

  test('has every kind of caller', () => {
    const kinds = ['nobody', 'forger', 'admin', 'user', 'platform', 'worker'];
    expect([...new Set(CASES.map(({ as }) => as))]).toEqual(expect.arrayContaining(kinds));
  });
});
