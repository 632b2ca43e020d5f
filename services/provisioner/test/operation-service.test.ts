import { setTimeout as delay } from 'node:timers/promises';
import { Code, createClient } from '@connectrpc/connect';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { OperationService, OperationState, TenantState, type Operation } from '@mad/proto/provisioner';
import { violationsOf } from '@mad/rpc';
import { platformToken } from '@mad/testing';
import { failure, runProvisioner, type RunningProvisioner } from './running-provisioner.ts';

const SCHEMA = 'undertaken';
const ADMIN = uuidv7();

let mad: RunningProvisioner;

beforeAll(async () => {
  mad = await runProvisioner({ schema: SCHEMA });
});

afterAll(() => mad?.close());

async function ensure(): Promise<string> {
  const orgId = uuidv7();
  const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
  expect(tenant!.state).toBe(TenantState.READY);
  return orgId;
}

async function migrate(orgId: string) {
  const token = await platformToken({ userId: ADMIN, permissions: ['platform.tenants.migrate'] });
  return mad.tenantsAs(token).migrateTenant({ orgId, schema: SCHEMA });
}

async function newest(orgId: string, kind = ''): Promise<Operation> {
  const { operations } = await mad.operations().listOperations({ orgId, kind, pageSize: 1 });
  return operations[0]!;
}

/** Holds what every run of the tenant waits for, so that a begun operation stands still before its first step. */
async function holdTenant(orgId: string): Promise<() => Promise<unknown>> {
  const name = [`mad.tenant.${SCHEMA}.${orgId}`];
  await mad.admin.query('SELECT pg_advisory_lock(hashtextextended($1, 0))', name);
  return () => mad.admin.query('SELECT pg_advisory_unlock(hashtextextended($1, 0))', name);
}

async function begun(orgId: string, kind: string): Promise<Operation> {
  for (let wait = 0; wait < 200; wait += 1) {
    const found = await newest(orgId, kind);
    if (found !== undefined) return found;
    await delay(20);
  }
  throw new Error(`no ${kind} began`);
}

describe('an operation', () => {
  test('says what was done, how far it got, and who asked for it', async () => {
    const orgId = await ensure();
    expect(await newest(orgId)).toMatchObject({
      orgId,
      schema: SCHEMA,
      kind: 'provision',
      state: OperationState.SUCCEEDED,
      step: 'verify',
      progress: { done: 3n, total: 3n, unit: 'steps' },
      error: '',
      actorKind: 'service',
      cancelRequested: false,
    });
    await migrate(orgId);
    const migration = await newest(orgId);
    expect(migration).toMatchObject({
      kind: 'migrate',
      state: OperationState.SUCCEEDED,
      actorKind: 'platform',
      userId: ADMIN,
    });
    const { operation } = await mad.operations().getOperation({ operationId: migration.operationId });
    expect(operation).toEqual(migration);
  });

  test('that nobody knows is NOT_FOUND for every method', async () => {
    const operationId = uuidv7();
    const client = mad.operations();
    const watched = async () => {
      for await (const _ of client.watchOperation({ operationId }));
    };
    for (const ask of [client.getOperation, client.cancelOperation]) {
      expect((await failure(ask({ operationId }))).code).toBe(Code.NotFound);
    }
    expect((await failure(watched())).code).toBe(Code.NotFound);
  });

  test('is watched from where it is to its end, and its watcher sees every step', async () => {
    const orgId = await ensure();
    const release = await holdTenant(orgId);
    const migration = migrate(orgId);
    const { operationId } = await begun(orgId, 'migrate');
    const seen: OperationState[] = [];
    const watching = (async () => {
      for await (const { operation } of mad.operations().watchOperation({ operationId })) {
        seen.push(operation!.state);
        if (seen.length === 1) await release();
      }
    })();
    await Promise.all([migration, watching]);
    expect(seen[0]).toBe(OperationState.RUNNING);
    expect(seen.at(-1)).toBe(OperationState.SUCCEEDED);
  });
});

describe('cancelling', () => {
  test('gives an operation up before its step begins, and leaves the tenant as it was', async () => {
    const orgId = await ensure();
    const release = await holdTenant(orgId);
    const refused = failure(migrate(orgId));
    const { operationId } = await begun(orgId, 'migrate');
    const client = mad.operations();
    const { operation } = await client.cancelOperation({ operationId });
    expect(operation).toMatchObject({ state: OperationState.RUNNING, cancelRequested: true });
    expect((await client.cancelOperation({ operationId })).operation).toMatchObject({ cancelRequested: true });
    await release();
    expect((await refused).code).toBe(Code.Aborted);
    expect((await client.getOperation({ operationId })).operation).toMatchObject({
      state: OperationState.CANCELLED,
      progress: { done: 0n, total: 1n },
    });
    // A repeat of what was done changes nothing.
    expect((await client.cancelOperation({ operationId })).operation!.state).toBe(OperationState.CANCELLED);
    const { tenant } = await mad.tenants().ensureTenant({ orgId, schema: SCHEMA });
    expect(tenant).toMatchObject({ state: TenantState.READY, step: '' });
    await migrate(orgId);
  });

  test('is refused when the operation has ended, and when its kind must be carried through', async () => {
    const orgId = await ensure();
    const done = await newest(orgId);
    const ended = await failure(mad.operations().cancelOperation({ operationId: done.operationId }));
    expect([ended.code, ended.rawMessage]).toEqual([Code.FailedPrecondition, 'operation_id: it has ended']);
    const release = await holdTenant(orgId);
    const suspension = mad.tenants().suspendTenants({ orgId });
    const { operationId } = await begun(orgId, 'suspend');
    const refused = await failure(mad.operations().cancelOperation({ operationId }));
    expect([refused.code, refused.rawMessage]).toEqual([
      Code.FailedPrecondition,
      'operation_id: suspend must be carried through',
    ]);
    await release();
    expect((await suspension).tenants).toMatchObject([{ state: TenantState.SUSPENDED }]);
  });
});

test('the audit log names who asked for an operation, and who gave it up', async () => {
  const orgId = await ensure();
  await migrate(orgId);
  const release = await holdTenant(orgId);
  const refused = failure(migrate(orgId));
  let { operationId, state } = await newest(orgId, 'migrate');
  while (state !== OperationState.RUNNING) ({ operationId, state } = await newest(orgId, 'migrate'));
  const userId = uuidv7();
  const others = createClient(
    OperationService,
    mad.as(() => platformToken({ userId, permissions: ['platform.operations.cancel'] })),
  );
  for (let again = 0; again < 2; again += 1) await others.cancelOperation({ operationId });
  await release();
  await refused;
  const told = () => mad.events.filter((event) => event.orgId === orgId);
  for (let wait = 0; told().length < 4 && wait < 600; wait += 1) await delay(50);
  // They may be delivered in another order than they were noted.
  const by = told().map(({ action, outcome, actorKind, userId: who }) => `${action} ${outcome} ${actorKind} ${who}`);
  expect(new Set(by)).toEqual(
    new Set([
      'tenants.provision ok service ',
      `tenants.migrate ok platform ${ADMIN}`,
      `tenants.migrate cancelled platform ${ADMIN}`,
      `operations.cancel ok platform ${userId}`,
    ]),
  );
  expect(by).toHaveLength(4);
});

describe('listing', () => {
  test('goes page by page, newest first, by organization, kind and state', async () => {
    const orgId = await ensure();
    for (let again = 0; again < 3; again += 1) await migrate(orgId);
    const client = mad.operations();
    const ids: string[] = [];
    let pageToken = '';
    do {
      const page = await client.listOperations({ orgId, pageSize: 2, pageToken });
      expect(page.operations.length).toBeLessThanOrEqual(2);
      ids.push(...page.operations.map(({ operationId }) => operationId));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(ids).toHaveLength(4);
    expect(ids).toEqual(ids.toSorted().toReversed());
    const kinds = await client.listOperations({ orgId, kind: 'provision', state: OperationState.SUCCEEDED });
    expect(kinds.operations.map(({ kind }) => kind)).toEqual(['provision']);
    const failed = await client.listOperations({ orgId, state: OperationState.FAILED });
    expect(failed.operations).toEqual([]);
  });

  test('refuses a token of another query, a forged one, and a malformed organization, naming the field', async () => {
    const orgId = await ensure();
    await migrate(orgId);
    const client = mad.operations();
    const { nextPageToken } = await client.listOperations({ orgId, pageSize: 1 });
    expect(nextPageToken).not.toBe('');
    const [digest] = JSON.parse(Buffer.from(nextPageToken, 'base64url').toString()) as [string];
    const forged = Buffer.from(JSON.stringify([digest, ['yesterday', "' OR 1=1"]])).toString('base64url');
    for (const [request, field] of [
      [{ orgId, kind: 'migrate', pageToken: nextPageToken }, 'page_token'],
      [{ orgId, pageToken: forged }, 'page_token'],
      [{ orgId: 'acme' }, 'org_id'],
      [{ kind: 'DROP TABLE' }, 'kind'],
    ] as const) {
      const refused = await failure(client.listOperations(request));
      expect(violationsOf(refused).map((violation) => violation.field)).toEqual([field]);
    }
  });
});
