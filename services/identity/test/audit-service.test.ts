import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import type { AuditEventSchema } from '@mad/proto/identity';
import { reasonOf, violationsOf } from '@mad/rpc';
import { serviceToken } from '@mad/testing';
import { failure, runIdentity, type Clients, type TestIdentity, type TestOrganization } from './running-identity.ts';

let mad: TestIdentity;
let acme: TestOrganization;
let catalog: Clients;

beforeAll(async () => {
  mad = await runIdentity();
  acme = await mad.organization('acme');
  catalog = mad.as(await serviceToken('catalog'));
});
afterAll(() => mad.close());

function event(orgId: string, change: MessageInitShape<typeof AuditEventSchema> = {}) {
  return {
    auditId: uuidv7(),
    orgId,
    userId: randomUUID(),
    actorKind: 'user',
    action: 'jobs.create',
    entityType: 'job',
    entityId: randomUUID(),
    jobId: randomUUID(),
    outcome: 'ok',
    metadata: { zeta: 1.5, alpha: { ключ: [null, true, '"\\'] }, tiny: 1e-9, huge: 1e21 },
    time: timestampFromMs(Date.now()),
    ...change,
  };
}

test('other services’ events are appended to the chain of their organization, in order', async () => {
  const { orgId } = acme;
  const events = [event(orgId), event(orgId, { action: 'jobs.cancel' })];
  expect(await catalog.audit.appendAuditEvents({ events })).toMatchObject({ appended: 2 });
  const listed = (await acme.admin.audit.listAuditEvents({ orgId, pageSize: 2 })).events;
  expect(listed.map(({ auditId }) => auditId)).toEqual([events[1]!.auditId, events[0]!.auditId]);
  expect(listed[1]).toMatchObject({ ...events[0], time: expect.anything() });
  expect(listed[0]!.seq).toBe(listed[1]!.seq + 1n);
  const check = await acme.admin.audit.verifyAuditChain({ orgId });
  expect(check).toMatchObject({ intact: true, brokenSeq: 0n, checked: listed[0]!.seq });
});

test('an event sent again, also within one batch, is appended once', async () => {
  const { orgId } = acme;
  const one = event(orgId);
  expect((await catalog.audit.appendAuditEvents({ events: [one, one] })).appended).toBe(1);
  expect((await catalog.audit.appendAuditEvents({ events: [one, event(orgId)] })).appended).toBe(1);
});

test('one batch may hold several organizations and the platform, and chains never fork under load', async () => {
  const globex = await mad.organization('globex');
  const batch = () => [event(acme.orgId), event(globex.orgId), event('', { actorKind: 'service', userId: '' })];
  const sent = await Promise.all(
    Array.from({ length: 20 }, (_, n) =>
      catalog.audit.appendAuditEvents({ events: n % 2 === 0 ? batch() : batch().reverse() }),
    ),
  );
  expect(sent.every(({ appended }) => appended === 3)).toBe(true);
  for (const { orgId, admin } of [acme, globex]) {
    expect((await admin.audit.verifyAuditChain({ orgId })).intact).toBe(true);
  }
  const { rows } = await mad.superuser.query(
    `SELECT count(*)::int AS n, max(seq)::int AS last FROM identity.audit_logs WHERE org_id = $1`,
    [acme.orgId],
  );
  expect(rows[0].n).toBe(rows[0].last);
});

test('a chain that grows while it is checked is intact', async () => {
  const { orgId, admin } = acme;
  let appending = true;
  const append = async () => {
    for (let n = 0; n < 40; n += 1) await catalog.audit.appendAuditEvents({ events: [event(orgId)] });
    appending = false;
  };
  const check = async () => {
    const checks = [];
    while (appending) checks.push(await admin.audit.verifyAuditChain({ orgId }));
    return checks;
  };
  const [checks] = await Promise.all([check(), append()]);
  expect(checks.length).toBeGreaterThan(2);
  expect(checks.filter(({ intact }) => !intact)).toEqual([]);
});

test.each([
  ['audit_id', { auditId: 'x' }],
  ['org_id', { orgId: 'x' }],
  ['user_id', { userId: `'; --` }],
  ['actor_kind', { actorKind: 'ghost' }],
  ['action', { action: '' }],
  ['entity_id', { entityId: 'x'.repeat(256) }],
  ['entity_id', { entityId: 'nul \u0000' }],
  ['job_id', { jobId: 'x' }],
  ['outcome', { outcome: '' }],
  ['metadata', { metadata: { x: 'nul \u0000' } }],
  ['time', { time: undefined }],
])('an event with a bad %s is refused and the field named (case %#)', async (field, change) => {
  const error = await failure(
    catalog.audit.appendAuditEvents({ events: [event(acme.orgId), event(acme.orgId, change)] }),
  );
  expect(error.code).toBe(Code.InvalidArgument);
  expect(violationsOf(error).map((violation) => violation.field)).toEqual([`events[1].${field}`]);
});

test('events of an unknown organization are refused, none of the batch is kept', async () => {
  const one = event(acme.orgId);
  const error = await failure(catalog.audit.appendAuditEvents({ events: [one, event(randomUUID())] }));
  expect([error.code, reasonOf(error)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
  expect((await catalog.audit.appendAuditEvents({ events: [one] })).appended).toBe(1);
});

test('events are listed newest first, by action, in pages', async () => {
  const { orgId } = acme;
  const list = acme.admin.audit.listAuditEvents;
  await catalog.audit.appendAuditEvents({ events: Array.from({ length: 5 }, () => event(orgId, { action: 'x.y' })) });
  const first = await list({ orgId, action: 'x.y', pageSize: 3 });
  const second = await list({ orgId, action: 'x.y', pageSize: 3, pageToken: first.nextPageToken });
  const seqs = [...first.events, ...second.events].map(({ seq }) => Number(seq));
  expect(seqs).toEqual([...seqs].sort((a, b) => b - a));
  expect(seqs).toHaveLength(5);
  const foreign = await failure(list({ orgId, action: 'other', pageToken: first.nextPageToken }));
  expect([foreign.code, violationsOf(foreign)[0]?.field]).toEqual([Code.InvalidArgument, 'page_token']);
});

test('the service’s logins can neither change nor remove an event, nor reach a partition directly', async () => {
  const { orgId } = acme;
  for (const sql of [
    'UPDATE identity.audit_logs SET action = action WHERE org_id = $1',
    'DELETE FROM identity.audit_logs WHERE org_id = $1',
  ]) {
    await expect(mad.database.inOrg(orgId, (tx) => tx.execute(sql, [orgId]))).rejects.toThrow('permission denied');
    await expect(mad.database.asSystem((tx) => tx.execute(sql, [orgId]))).rejects.toThrow('permission denied');
  }
  for (let partition = 0; partition < 8; partition += 1) {
    const sql = `SELECT 1 FROM identity.audit_logs_p${partition}`;
    await expect(mad.database.asSystem((tx) => tx.query(sql))).rejects.toThrow('permission denied');
  }
});

// Each damage is done by a superuser, who alone can, and undone again.
test.each([
  ['changed', `UPDATE identity.audit_logs SET outcome = 'denied' WHERE org_id = $1 AND seq = 3`, 3n],
  ['backdated', `UPDATE identity.audit_logs SET ts = ts - interval '1 ms' WHERE org_id = $1 AND seq = 3`, 3n],
  ['given to another', `UPDATE identity.audit_logs SET user_id = gen_random_uuid() WHERE org_id = $1 AND seq = 4`, 4n],
  ['rewritten in detail', `UPDATE identity.audit_logs SET metadata = '{"x": 1}' WHERE org_id = $1 AND seq = 2`, 2n],
  ['taken out', `DELETE FROM identity.audit_logs WHERE org_id = $1 AND seq = 3`, 3n],
  ['the first', `DELETE FROM identity.audit_logs WHERE org_id = $1 AND seq = 1`, 1n],
  ['forged by hash', `UPDATE identity.audit_logs SET hash = sha256('x') WHERE org_id = $1 AND seq = 2`, 2n],
])('an event that was %s shows where', async (_damage, sql, seq) => {
  const { orgId } = acme;
  await mad.superuser.query('CREATE TEMP TABLE kept AS SELECT * FROM identity.audit_logs WHERE org_id = $1', [orgId]);
  try {
    await mad.superuser.query(sql, [orgId]);
    const check = await acme.admin.audit.verifyAuditChain({ orgId });
    expect(check).toMatchObject({ intact: false, brokenSeq: seq, checked: seq - 1n });
  } finally {
    await mad.superuser.query('DELETE FROM identity.audit_logs WHERE org_id = $1', [orgId]);
    await mad.superuser.query('INSERT INTO identity.audit_logs SELECT * FROM kept; DROP TABLE kept');
  }
  expect((await acme.admin.audit.verifyAuditChain({ orgId })).intact).toBe(true);
});

test('an event cut off the end shows against the head of the chain', async () => {
  const { orgId, admin } = await mad.organization('cut');
  const { checked } = await admin.audit.verifyAuditChain({ orgId });
  await mad.superuser.query('DELETE FROM identity.audit_logs WHERE org_id = $1 AND seq = $2', [orgId, checked]);
  const check = await admin.audit.verifyAuditChain({ orgId });
  expect(check).toMatchObject({ intact: false, brokenSeq: checked, checked: checked - 1n });
});

test('a sign-in’s address is the edge’s word for it, and only an address', async () => {
  const { orgId, admin, adminEmail } = await mad.organization('edge');
  const credentials = { email: adminEmail, password: 'staple battery horse' };
  const from = (address: string) => ({ headers: { 'x-forwarded-for': address } });
  await mad.as().sessions.login(credentials, from('192.0.2.7, 10.0.0.1'));
  await mad.as().sessions.login(credentials, from(`'; DROP TABLE x`));
  const { events } = await admin.audit.listAuditEvents({ orgId, action: 'sessions.login', pageSize: 2 });
  expect(events.map(({ address }) => address)).toEqual(['', '192.0.2.7']);
});
