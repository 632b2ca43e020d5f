import { expect, test } from '@jest/globals';
import { generateSigningKey } from '@mad/auth';
import { readResultsConfig } from '../src/index.ts';

const [results, catalog] = await Promise.all([generateSigningKey(), generateSigningKey()]);
const minimal = {
  RESULTS_SERVICE_KEY: JSON.stringify(results.privateJwk),
  MAD_SERVICE_KEYS: JSON.stringify({ catalog: catalog.publicJwk }),
  OBJECT_STORE_URL: 'file:///var/lib/mad/objects',
};

test('has a default for everything but keys', () => {
  expect(readResultsConfig(minimal)).toMatchObject({
    host: '127.0.0.1',
    port: 7003,
    provisionerAddress: '127.0.0.1:7004',
    catalogAddress: '127.0.0.1:7002',
    identityAddress: '127.0.0.1:7001',
    tenantPoolMax: 10,
    tenantInFlight: 256,
    tenantsOpen: 1000,
    tenantIdleMs: 300_000,
    statementTimeoutMs: 60_000,
    retentionEveryHours: 24,
    retentionGraceHours: 24,
    retentionSliceRows: 10_000,
    node: 'mad-results',
  });
});

test('reports every problem at once, and repeats no key', () => {
  const env = {
    RESULTS_PORT: '99999',
    RESULTS_TENANT_POOL_MAX: '0',
    RESULTS_SERVICE_KEY: JSON.stringify(results.publicJwk),
    MAD_SERVICE_KEYS: JSON.stringify({ catalog: catalog.privateJwk }),
  };
  let message = '';
  try {
    readResultsConfig(env);
  } catch (error) {
    message = (error as Error).message;
  }
  for (const name of ['RESULTS_PORT', 'RESULTS_TENANT_POOL_MAX', 'RESULTS_SERVICE_KEY', 'MAD_SERVICE_KEYS']) {
    expect(message).toContain(name);
  }
  expect(message).not.toContain(catalog.privateJwk.d);
});

test('wants the key that verifies leases', () => {
  expect(() => readResultsConfig({ ...minimal, MAD_SERVICE_KEYS: '{}' })).toThrow('must hold the key of catalog');
});
