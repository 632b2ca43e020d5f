import { Code, createClient, type Client } from '@connectrpc/connect';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { ObjectKeyService } from '@mad/proto/provisioner';
import { reasonOf } from '@mad/rpc';
import { noteMigrations } from './neighbours.ts';
import { failure, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'keyed';

let mad: RunningProvisioner;
let results: Client<typeof ObjectKeyService>;

beforeAll(async () => {
  mad = await runProvisioner({
    schema: SCHEMA,
    migrations: noteMigrations(SCHEMA),
    environment: { PROVISIONER_CLEANUP_GRACE_MS: '0' },
  });
  results = createClient(ObjectKeyService, mad.transport('results'));
});

afterAll(() => mad?.close());

const keysOf = async (orgId: string) => (await results.getObjectKeys({ orgId })).keys;
const stored = async (orgId: string) =>
  (await mad.rows.query<{ version: number }>('SELECT version FROM provisioner.data_keys WHERE org_id = $1', [orgId]))
    .rows;

test('an organization has one key, made when it is first asked for, whoever asks', async () => {
  const orgId = uuidv7();
  const [first, ...others] = await Promise.all(Array.from({ length: 8 }, () => keysOf(orgId)));
  expect(first).toMatchObject([{ version: 1 }]);
  expect(first![0]!.key).toHaveLength(32);
  for (const keys of others) expect(keys).toEqual(first);
  const catalog = createClient(ObjectKeyService, mad.transport('catalog'));
  expect((await catalog.getObjectKeys({ orgId: orgId.toUpperCase() })).keys).toEqual(first);
  expect(await stored(orgId)).toEqual([{ version: 1 }]);
  expect((await keysOf(uuidv7()))[0]!.key).not.toEqual(first![0]!.key);
});

test('the key is of the same data key that seals its databases’ passwords, which stays the only one', async () => {
  const orgId = uuidv7();
  const [before] = await keysOf(orgId);
  await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(await keysOf(orgId)).toEqual([before]);
  expect(await stored(orgId)).toEqual([{ version: 1 }]);
});

test('nobody else is told', async () => {
  const identity = createClient(ObjectKeyService, mad.transport('identity'));
  expect((await failure(identity.getObjectKeys({ orgId: uuidv7() }))).code).toBe(Code.PermissionDenied);
});

test('an organization that was erased has no key, and gets none', async () => {
  const orgId = uuidv7();
  await keysOf(orgId);
  await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  await mad.tenants().eraseTenants({ orgId, erasureId: uuidv7(), slug: 'acme', requestedBy: uuidv7() });
  expect(await stored(orgId)).toEqual([]);
  const refusal = await failure(results.getObjectKeys({ orgId }));
  expect([refusal.code, reasonOf(refusal)]).toEqual([Code.FailedPrecondition, 'STATE_CONFLICT']);
  expect(await stored(orgId)).toEqual([]);
});
