import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { DescMethod, DescService } from '@bufbuild/protobuf';
import { describe, expect, test } from '@jest/globals';
import { Audience } from '@mad/proto/access';
import { accessRuleOf } from '../src/index.ts';

// Every method of every contract says who may call it. A method that does not is denied to all, and this test fails.

const modules = ['catalog', 'echo', 'identity', 'provisioner', 'results', 'tenancy'];
const folder = join(import.meta.dirname, '../../proto/src');
const services: DescService[] = [];
for (const name of modules.filter((one) => existsSync(join(folder, `${one}.ts`)))) {
  const exported = (await import(join(folder, `${name}.ts`))) as Record<string, unknown>;
  services.push(...Object.values(exported).filter(isService));
}

function isService(value: unknown): value is DescService {
  return typeof value === 'object' && value !== null && (value as { kind?: unknown }).kind === 'service';
}

/** The service without access rules is there to show that they are missed. */
const guarded = services.filter(({ typeName }) => typeName !== 'mad.echo.v1.UnguardedService');
const methods: [string, DescMethod][] = guarded.flatMap((service) =>
  service.methods.map((method): [string, DescMethod] => [`${service.typeName}/${method.name}`, method]),
);

/** The services that may be named as callers. */
const callers = ['identity', 'catalog', 'results', 'provisioner', 'gateway', 'worker'];

test('contracts were found', () => {
  expect(methods.length).toBeGreaterThan(20);
});

describe.each(methods)('%s', (_name, method) => {
  const rule = accessRuleOf(method);

  test('says completely who may call it', () => {
    expect(rule).toBeDefined();
    if (rule?.audience === Audience.USER) {
      expect(rule.permission).toMatch(/^(self|(?!platform\.)[a-z_]+(\.[a-z_]+)+)$/);
    } else if (rule?.audience === Audience.PLATFORM) {
      expect(rule.permission).toMatch(/^(self|platform(\.[a-z_]+)+)$/);
    } else if (rule?.audience === Audience.SERVICE) {
      expect(callers).toEqual(expect.arrayContaining([...rule.callers]));
    }
    if (rule?.audience !== Audience.SERVICE) expect([...(rule?.callers ?? [])]).toEqual([]);
  });

  test('names an organization where a service needs one, as text', () => {
    const orgId = method.input.field['orgId'];
    if (orgId) expect(orgId.fieldKind).toBe('scalar');
  });
});
