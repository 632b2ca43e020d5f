import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { formatApiToken, parseApiToken, tokenPrefix } from '../src/domain/api-token.ts';
import { auditPayload, type AuditEntry } from '../src/domain/audit-chain.ts';
import { KEY_LIFE_MS, planRotation, signingKeyAt } from '../src/domain/key-rotation.ts';
import { chargeAttempt, type LoginAttempts } from '../src/domain/login-backoff.ts';
import { allowedUse, frozen, resumed, suspended } from '../src/domain/organization-status.ts';
import { builtInRoles, exceeding, permissionCatalogue, scopedPermissions } from '../src/domain/permissions.ts';
import { badQuota, DEFAULT_QUOTAS, withDefaults } from '../src/domain/quotas.ts';
import { readPermissionCatalogue } from '../src/permission-catalogue.ts';
import { masterKey } from '../src/secrets/master-key.ts';

const NOW = new Date('2026-11-21T12:00:00Z');
const MINUTE = 60_000;
const at = (ms: number): Date => new Date(NOW.getTime() + ms);

describe('permissions', () => {
  test('are collected from user and platform methods, sorted, once each, without "self"', () => {
    const catalogue = permissionCatalogue([
      { audience: 'user', permission: 'jobs.read' },
      { audience: 'user', permission: 'jobs.create' },
      { audience: 'user', permission: 'jobs.read' },
      { audience: 'user', permission: 'self' },
      { audience: 'platform', permission: 'platform.seed' },
      { audience: 'service', permission: 'ignored.x' },
      { audience: 'public', permission: '' },
    ]);
    expect(catalogue).toEqual({ organization: ['jobs.create', 'jobs.read'], platform: ['platform.seed'] });
  });

  test('of the contracts: a user reads all but the audit log and changes only what scientists work on', () => {
    const catalogue = readPermissionCatalogue();
    const [user, admin, superAdmin] = builtInRoles(catalogue);
    expect(admin!.permissions).toEqual(catalogue.organization);
    expect(superAdmin!.permissions).toEqual(catalogue.platform);
    expect(catalogue.platform.every((permission) => permission.startsWith('platform.'))).toBe(true);
    expect(user!.permissions).toEqual(
      expect.arrayContaining(['jobs.create', 'jobs.cancel', 'jobs.read', 'molecules.create', 'pipelines.create']),
    );
    // A new resource that scientists change must be named in the domain; this list makes that a decision.
    expect(exceeding(admin!.permissions, user!.permissions).sort()).toEqual([
      'audit.read',
      'cache.manage',
      'members.create',
      'members.delete',
      'members.update',
      'organizations.update',
      'retention.manage',
      'roles.create',
      'roles.delete',
      'roles.update',
    ]);
  });

  test('a token allows its scopes as far as they are held', () => {
    expect(scopedPermissions([], ['b.x', 'a.x'])).toEqual(['a.x', 'b.x']);
    expect(scopedPermissions(['a.x', 'c.x'], ['b.x', 'a.x'])).toEqual(['a.x']);
    const names = fc.uniqueArray(fc.constantFrom('a.x', 'b.x', 'c.x', 'd.x'));
    fc.assert(
      fc.property(names, names, (scopes, held) => exceeding(scopedPermissions(scopes, held), held).length === 0),
    );
  });
});

describe('sign-in attempts', () => {
  test('five are free, then each waits longer, never above five minutes', () => {
    let attempts: LoginAttempts = { failedLogins: 0, lockedUntil: null };
    const waits: number[] = [];
    let now = NOW;
    for (let n = 0; n < 20; n += 1) {
      const charged = chargeAttempt(attempts, now);
      expect(charged).toBeDefined();
      attempts = charged!;
      waits.push(attempts.lockedUntil === null ? 0 : attempts.lockedUntil.getTime() - now.getTime());
      now = attempts.lockedUntil ?? now;
    }
    expect(waits.slice(0, 7)).toEqual([0, 0, 0, 0, 0, 2_000, 4_000]);
    expect(Math.max(...waits)).toBe(300_000);
  });

  test('nothing is tried while locked; after long quiet counting starts anew', () => {
    const locked = { failedLogins: 9, lockedUntil: at(1) };
    expect(chargeAttempt(locked, NOW)).toBeUndefined();
    expect(chargeAttempt(locked, at(1))).toMatchObject({ failedLogins: 10 });
    expect(chargeAttempt(locked, at(16 * MINUTE))).toEqual({ failedLogins: 1, lockedUntil: null });
  });
});

describe('signing keys', () => {
  test('the first key signs at once', () => {
    expect(planRotation([], NOW)).toEqual({ create: { notBefore: NOW }, retire: [], remove: [] });
  });

  test('a young key stays; an old one is followed by one that is published first, and verifies beyond it', () => {
    const key = { kid: 'a', notBefore: at(-KEY_LIFE_MS + 1), retireAt: null };
    expect(planRotation([key], NOW)).toEqual({ retire: [], remove: [] });
    const plan = planRotation([key], at(1));
    expect(plan.create!.notBefore.getTime()).toBeGreaterThanOrEqual(at(10 * MINUTE).getTime());
    expect(plan.retire).toHaveLength(1);
    expect(plan.retire[0]!.at.getTime() - plan.create!.notBefore.getTime()).toBeGreaterThan(10 * MINUTE);
    const keys = [
      { ...key, retireAt: plan.retire[0]!.at },
      { kid: 'b', notBefore: plan.create!.notBefore, retireAt: null },
    ];
    expect(signingKeyAt(keys, at(2))!.kid).toBe('a');
    expect(signingKeyAt(keys, plan.create!.notBefore)!.kid).toBe('b');
    // While the next one waits for its time no third is made, not even by force.
    expect(planRotation(keys, at(2), { force: true })).toEqual({ retire: [], remove: [] });
    expect(planRotation(keys, plan.retire[0]!.at).remove).toEqual(['a']);
  });

  test('at every moment of a year of rotation one key signs, and its tokens verify to their end', () => {
    let keys: { kid: string; notBefore: Date; retireAt: Date | null }[] = [];
    let made = 0;
    for (let hour = 0; hour < 24 * 365; hour += 1) {
      const now = at(hour * 60 * MINUTE);
      const plan = planRotation(keys, now);
      keys = keys.filter(({ kid }) => !plan.remove.includes(kid));
      for (const { kid, at: end } of plan.retire) keys.find((key) => key.kid === kid)!.retireAt = end;
      if (plan.create) keys.push({ kid: `k${(made += 1)}`, notBefore: plan.create.notBefore, retireAt: null });
      for (const minute of [0, 15, 30, 59]) {
        const moment = new Date(now.getTime() + minute * MINUTE);
        const signing = signingKeyAt(keys, moment);
        expect(signing).toBeDefined();
        const last = signing!.retireAt?.getTime() ?? Infinity;
        expect(last).toBeGreaterThan(moment.getTime() + 10 * MINUTE);
      }
    }
    expect(made).toBeGreaterThan(10);
    expect(keys.length).toBeLessThanOrEqual(2);
  });
});

test('a status allows use, suspension and resumption as it should', () => {
  expect(
    ['provisioning', 'active', 'read_only', 'suspended', 'erasing', 'erased'].map((s) => allowedUse(s as never)),
  ).toEqual(['everything', 'everything', 'reading', 'nothing', 'nothing', 'nothing']);
  expect(suspended('active')).toBe('suspended');
  expect(suspended('erased')).toBeUndefined();
  expect(suspended('provisioning')).toBeUndefined();
  expect(resumed('suspended')).toBe('active');
  expect(resumed('read_only')).toBe('active');
  expect([frozen('active'), frozen('suspended'), frozen('read_only')]).toEqual(['read_only', 'read_only', 'read_only']);
  expect(frozen('provisioning')).toBeUndefined();
  expect(frozen('erased')).toBeUndefined();
  expect(resumed('erasing')).toBeUndefined();
  expect(resumed('provisioning')).toBeUndefined();
});

test('quotas take defaults for what is absent or zero, and must be positive whole numbers', () => {
  expect(withDefaults({})).toEqual(DEFAULT_QUOTAS);
  expect(withDefaults({ max_members: 0, max_tokens: 7 })).toEqual({ ...DEFAULT_QUOTAS, max_tokens: 7 });
  expect(badQuota(withDefaults({ max_members: -1 }))).toBe('max_members');
  expect(badQuota(withDefaults({ max_storage_bytes: 2 ** 60 }))).toBe('max_storage_bytes');
  expect(badQuota(withDefaults({}))).toBeUndefined();
});

test('API tokens read back as written; anything else is none', () => {
  const bytes = fc.uint8Array({ minLength: 10, maxLength: 10 });
  fc.assert(
    fc.property(bytes, fc.uint8Array({ minLength: 32, maxLength: 32 }), (prefix, secret) => {
      const token = { prefix: tokenPrefix(prefix), secret: Buffer.from(secret).toString('base64url') };
      expect(parseApiToken(formatApiToken(token))).toEqual(token);
    }),
  );
  for (const text of ['', 'mad_', `mad_aaaaaaaaaa_${'x'.repeat(42)}`, `mad_aaaaaaaaaa_${'x'.repeat(43)}\n`]) {
    expect(parseApiToken(text)).toBeUndefined();
  }
});

test('an audit event’s canonical form changes with every field and not with the order of keys', () => {
  const entry: AuditEntry = {
    auditId: 'a',
    orgId: 'o',
    userId: null,
    actorKind: 'user',
    action: 'x.y',
    entityType: 't',
    entityId: 'e',
    pipelineId: null,
    jobId: null,
    requestId: null,
    address: '',
    outcome: 'ok',
    metadata: { b: 1, a: { d: [1, 2], c: 'é' } },
    time: NOW,
  };
  const reordered = { ...entry, metadata: { a: { c: 'é', d: [1, 2] }, b: 1 } };
  expect(auditPayload(1, reordered)).toBe(auditPayload(1, entry));
  const changes: Partial<AuditEntry>[] = [
    { auditId: 'b' },
    { orgId: 'p' },
    { userId: 'u' },
    { actorKind: 'platform' },
    { action: 'x.z' },
    { entityType: 'u' },
    { entityId: 'f' },
    { pipelineId: 'p' },
    { jobId: 'j' },
    { requestId: 'r' },
    { address: '::1' },
    { outcome: 'no' },
    { metadata: {} },
    { time: at(1) },
  ];
  const payloads = [
    auditPayload(1, entry),
    auditPayload(2, entry),
    ...changes.map((c) => auditPayload(1, { ...entry, ...c })),
  ];
  expect(new Set(payloads).size).toBe(payloads.length);
  expect(changes.length).toBe(Object.keys(entry).length);
});

test('what is sealed opens only unaltered, under its own name and key', () => {
  const key = masterKey(Buffer.alloc(32, 1));
  const sealed = key.seal(Buffer.from('secret'), 'kid-1');
  expect(key.open(sealed, 'kid-1').toString()).toBe('secret');
  expect(() => key.open(sealed, 'kid-2')).toThrow();
  expect(() => masterKey(Buffer.alloc(32, 2)).open(sealed, 'kid-1')).toThrow();
  for (const index of [0, 12, sealed.length - 1]) {
    const altered = Buffer.from(sealed);
    altered[index]! ^= 1;
    expect(() => key.open(altered, 'kid-1')).toThrow();
  }
  expect(() => key.open(sealed.subarray(0, 20), 'kid-1')).toThrow();
  expect(() => masterKey(Buffer.alloc(31))).toThrow(RangeError);
  expect(key.tokenDigest('x').equals(key.refreshDigest('x'))).toBe(false);
});
