import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import type { ConfigError } from '@mad/process';
import { readProvisionerConfig } from '../src/index.ts';
import { parseMasterKeys } from '../src/secrets/master-key.ts';

const key = (): string => randomBytes(32).toString('base64');

function problemsOf(env: Record<string, string>): string[] {
  try {
    readProvisionerConfig(env);
  } catch (error) {
    return [...(error as ConfigError).problems];
  }
  return [];
}

describe('configuration', () => {
  test('reports everything that is missing or wrong at once, and repeats no secret', () => {
    const problems = problemsOf({
      PROVISIONER_PORT: 'x',
      PROVISIONER_MASTER_KEY: 'not-a-key',
      PROVISIONER_TENANT_SCHEMAS: 'Results=nowhere',
      PROVISIONER_SERVERS: '[{"name":"local","host":"h","port":1,"provisioner_password":7}]',
      PROVISIONER_SERVICE_KEY: '{"d":"sesame"',
    });
    expect(new Set(problems.map((problem) => problem.split(':')[0]))).toEqual(
      new Set([
        'MAD_SERVICE_KEYS',
        'OBJECT_STORE_URL',
        'PROVISIONER_DATABASE_URL',
        'PROVISIONER_MASTER_KEY',
        'PROVISIONER_PORT',
        'PROVISIONER_SERVERS',
        'PROVISIONER_SERVICE_KEY',
        'PROVISIONER_SYSTEM_URL',
        'PROVISIONER_TENANT_SCHEMAS',
      ]),
    );
    expect(problems.join()).not.toMatch(/not-a-key|sesame/);
    expect(problems.join()).toContain('[0].provisioner_password must be a string');
  });
});

describe('master keys', () => {
  test('the newest seals, each opens its own, and nothing opens in another’s place', () => {
    const [one, two] = [key(), key()];
    const before = parseMasterKeys(one);
    const sealed = before.seal(Buffer.from('secret'), 'here');
    expect(sealed.version).toBe(1);
    const after = parseMasterKeys(`2:${two},1:${one}`);
    expect(after.open(sealed, 'here').toString()).toBe('secret');
    expect(after.seal(Buffer.from('x'), 'here').version).toBe(2);
    expect(() => after.open(sealed, 'there')).toThrow();
    expect(() => parseMasterKeys(two).open(sealed, 'here')).toThrow();
    expect(() => parseMasterKeys(`2:${two}`).open(sealed, 'here')).toThrow('version 1 is not configured');
    sealed.sealed[14]! ^= 1;
    expect(() => after.open(sealed, 'here')).toThrow();
  });
  test('are 32 bytes each and named once', () => {
    for (const bad of ['', 'abc', `1:${key()},1:${key()}`, `0:${key()}`]) expect(() => parseMasterKeys(bad)).toThrow();
  });
});
