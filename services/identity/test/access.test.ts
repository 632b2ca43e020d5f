import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { getOption, type DescMethod, type DescMethodUnary } from '@bufbuild/protobuf';
import { Code, type ConnectError } from '@connectrpc/connect';
import { access, Audience } from '@mad/proto/access';
import { grpcTransport, reasonOf, type GrpcTransport } from '@mad/rpc';
import { badTokens, serviceToken, userToken } from '@mad/testing';
import { routes } from '../src/routes.ts';
import { failure, runIdentity, type TestIdentity, type TestOrganization } from './running-identity.ts';

let mad: TestIdentity;
let acme: TestOrganization;
let transport: GrpcTransport;

beforeAll(async () => {
  mad = await runIdentity();
  acme = await mad.organization('acme');
  transport = grpcTransport(`127.0.0.1:${mad.identity.port}`);
});
afterAll(async () => {
  transport.close();
  await mad.close();
});

const isUnary = (method: DescMethod): method is DescMethodUnary => method.methodKind === 'unary';
const methods = routes({} as never)
  .flatMap(({ service }) => service.methods)
  .filter(isUnary);
const ofAudience = (...audiences: Audience[]) =>
  methods.filter((method) => audiences.includes(getOption(method, access).audience));

/** Calls a method with an empty request and a token: access is decided before the request is looked at. */
async function call(method: DescMethodUnary, token: string): Promise<ConnectError> {
  const headers = { authorization: `Bearer ${token}` };
  return failure(transport.unary(method, undefined, 5_000, headers, {}));
}

test('expired, unsigned, altered, alg-none, foreign-audience and foreign-key tokens open no user method', async () => {
  const tokens = await badTokens({ orgId: acme.orgId, userId: acme.adminId, permissions: ['members.read'] });
  const { orgId } = acme;
  await mad.as(await userToken({ orgId, permissions: ['members.read'] })).members.listMembers({ orgId });
  for (const [kind, token] of Object.entries(tokens)) {
    const error = await failure(mad.as(token).members.listMembers({ orgId }));
    expect([kind, error.code]).toEqual([kind, Code.Unauthenticated]);
  }
  expect((await failure(mad.as().members.listMembers({ orgId }))).code).toBe(Code.Unauthenticated);
});

test('a service token opens no user and no platform method', async () => {
  const token = await serviceToken('catalog');
  for (const method of ofAudience(Audience.USER, Audience.PLATFORM)) {
    const error = await call(method, token);
    expect([method.name, error.code]).toEqual([method.name, Code.Unauthenticated]);
  }
});

test('a user’s and a platform administrator’s token open no service method', async () => {
  for (const method of ofAudience(Audience.SERVICE)) {
    for (const token of [acme.adminToken, mad.platformToken]) {
      const error = await call(method, token);
      expect([method.name, error.code]).toEqual([method.name, Code.Unauthenticated]);
    }
  }
});

test('a user’s token opens no platform method, and a platform administrator’s no user method', async () => {
  for (const method of ofAudience(Audience.PLATFORM)) {
    const error = await call(method, acme.adminToken);
    expect([method.name, error.code, reasonOf(error)]).toEqual([method.name, Code.PermissionDenied, 'WRONG_AUDIENCE']);
  }
  for (const method of ofAudience(Audience.USER)) {
    const error = await call(method, mad.platformToken);
    expect([method.name, error.code, reasonOf(error)]).toEqual([method.name, Code.PermissionDenied, 'WRONG_AUDIENCE']);
  }
});

test('a service that a method does not name is refused, and so is one that signs with another’s key', async () => {
  const results = mad.as(await serviceToken('results'));
  const error = await failure(results.audit.appendAuditEvents({ events: [] }));
  expect([error.code, reasonOf(error)]).toEqual([Code.PermissionDenied, 'CALLER_NOT_ALLOWED']);
  const impostor = mad.as(await serviceToken('worker'));
  expect((await failure(impostor.audit.appendAuditEvents({ events: [] }))).code).toBe(Code.Unauthenticated);
});

test('a token without the permission is refused by every user method that names one', async () => {
  const token = await userToken({ orgId: acme.orgId, permissions: [] });
  for (const method of ofAudience(Audience.USER)) {
    if (getOption(method, access).permission === 'self') continue;
    const error = await call(method, token);
    expect([method.name, error.code, reasonOf(error)]).toEqual([
      method.name,
      Code.PermissionDenied,
      'PERMISSION_MISSING',
    ]);
  }
});

test('a token of an organization that is not there finds nothing', async () => {
  const orgId = randomUUID();
  const stranger = mad.as(await userToken({ orgId, permissions: ['members.read', 'members.create'] }));
  for (const request of [
    () => stranger.members.listMembers({ orgId }),
    () => stranger.members.addMember({ orgId, requestId: randomUUID(), email: 'a@b.test', roles: ['user'] }),
  ]) {
    const error = await failure(request());
    expect([error.code, reasonOf(error)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
  }
});

test('a body over the limit is refused on both ports, and others are served', async () => {
  const { orgId } = acme;
  const config = { text: 'x'.repeat(5 * 1024 * 1024) };
  const settings = { orgId, requestId: randomUUID(), config };
  const error = await failure(acme.admin.organizations.updateOrganizationSettings(settings));
  expect(error.code).toBe(Code.ResourceExhausted);
  const path = '/mad.identity.v1.OrganizationService/UpdateOrganizationSettings';
  const response = await fetch(`http://127.0.0.1:${mad.identity.connectPort}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${acme.adminToken}` },
    body: JSON.stringify(settings),
  }).catch(() => undefined);
  // Refused in words, or by closing the connection while the body is still being sent.
  if (response !== undefined) expect(response.ok).toBe(false);
  await acme.admin.organizations.getOrganization({ orgId });
});

test('two bytes and silence on each port keep nobody else waiting', async () => {
  const sockets = [mad.identity.port, mad.identity.connectPort].flatMap((port) =>
    Array.from({ length: 20 }, () => connect(port, '127.0.0.1')),
  );
  try {
    for (const socket of sockets) {
      socket.on('error', () => undefined);
      socket.write('PR');
    }
    await acme.admin.organizations.getOrganization({ orgId: acme.orgId });
    const health = await fetch(`http://127.0.0.1:${mad.identity.connectPort}/grpc.health.v1.Health/Check`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{}',
    });
    expect(await health.json()).toEqual({ status: 'SERVING' });
    // Both answers came while all forty were still there, silent.
    expect(sockets.filter(({ closed }) => closed)).toEqual([]);
  } finally {
    for (const socket of sockets) socket.destroy();
  }
});
