import { randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import type { ConfigError } from '@mad/process';
import { readProvisionerConfig } from '../src/index.ts';
import { parseMasterKeys } from '../src/secrets/local-keys.ts';

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
  test('are 32 bytes each and named once', () => {
    for (const bad of ['', 'abc', `1:${key()},1:${key()}`, `0:${key()}`]) expect(() => parseMasterKeys(bad)).toThrow();
  });
});
