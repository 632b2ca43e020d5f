import { Code, ConnectError } from '@connectrpc/connect';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { objectKeys, type ObjectKeys } from '@mad/object-store';
import { createLogger, uuidv7 } from '@mad/process';
import { ObjectKeyService } from '@mad/proto/provisioner';
import { bind, grpcTransport, serveRpc, type GrpcTransport, type RpcServer } from '@mad/rpc';

const FRESH_MS = 50;

let server: RpcServer;
let transport: GrpcTransport;
/** What the provisioner answers with instead of a key. */
let fault: Code | undefined;
let calls = 0;
let version = 1;
let keys: ObjectKeys;

beforeAll(async () => {
  server = await serveRpc({
    service: 'keys',
    host: '127.0.0.1',
    port: 0,
    interceptors: [],
    logger: createLogger('keys', { level: 'silent' }),
    services: [
      bind(ObjectKeyService, {
        getObjectKeys() {
          calls += 1;
          if (fault !== undefined) throw new ConnectError('as the test wants it', fault);
          return { keys: [{ version, key: new Uint8Array(32) }] };
        },
      }),
    ],
  });
  transport = grpcTransport(`127.0.0.1:${server.port}`);
});

afterAll(async () => {
  transport?.close();
  await server?.close();
});

beforeEach(() => {
  fault = undefined;
  calls = 0;
  version = 1;
  keys = objectKeys(transport, FRESH_MS);
});

const versionsOf = async (orgId: string) => (await keys(orgId)).map((key) => key.version);
const stale = () => new Promise((resolve) => setTimeout(resolve, 2 * FRESH_MS));

test('are asked for once by all who come meanwhile, and again when they are old', async () => {
  const orgId = uuidv7();
  await Promise.all(Array.from({ length: 10 }, () => keys(orgId)));
  expect(calls).toBe(1);
  version = 2;
  await stale();
  expect(await versionsOf(orgId)).toEqual([2]);
  expect(calls).toBe(2);
});

test.each([Code.Unavailable, Code.DeadlineExceeded])('stay in use while nobody answers (code %i)', async (code) => {
  const orgId = uuidv7();
  await keys(orgId);
  fault = code;
  await stale();
  expect(await versionsOf(orgId)).toEqual([1]);
  await expect(keys(uuidv7())).rejects.toMatchObject({ code });
});

test('are forgotten where the organization has none any more', async () => {
  const orgId = uuidv7();
  await keys(orgId);
  fault = Code.FailedPrecondition;
  await stale();
  await expect(keys(orgId)).rejects.toMatchObject({ code: Code.FailedPrecondition });
  fault = Code.Unavailable;
  await expect(keys(orgId)).rejects.toMatchObject({ code: Code.Unavailable });
});
