import { expect, test } from '@jest/globals';
import { Code } from '@connectrpc/connect';
import { type ConfigError, uuidv7 } from '@mad/process';
import { MoleculeService, PipelineService } from '@mad/proto/catalog';
import { reasonOf, retryAfterMsOf } from '@mad/rpc';
import { testServiceKeys } from '@mad/testing';
import { readCatalogConfig, startCatalog } from '../src/index.ts';
import { errorOf } from './errors.ts';
import { startTestCatalog } from './harness.ts';
import { silent } from './neighbours.ts';

test('a configuration is refused with every problem in it', () => {
  const env = {
    CATALOG_PORT: '70000',
    CATALOG_SYSTEM_URL: 'not a url',
    CATALOG_SERVICE_KEY: '{"kty": "RSA"}',
    MAD_SERVICE_KEYS: '[]',
    PROVISIONING: 'never',
    OBJECT_STORE_URL: '',
  };
  let problems: readonly string[] = [];
  try {
    readCatalogConfig(env);
  } catch (error) {
    problems = (error as ConfigError).problems;
  }
  expect(problems.map((problem) => problem.split(':', 1).join()).toSorted((a, b) => (a < b ? -1 : 1))).toEqual([
    'CATALOG_DATABASE_URL',
    'CATALOG_PORT',
    'CATALOG_SERVICE_KEY',
    'CATALOG_SYSTEM_URL',
    'MAD_SERVICE_KEYS',
    'OBJECT_STORE_URL',
    'PROVISIONING',
  ]);
});

test('a private key among the public ones is refused', async () => {
  const keys = await testServiceKeys(['catalog']);
  const env = {
    CATALOG_DATABASE_URL: 'postgres://h/d',
    CATALOG_SYSTEM_URL: 'postgres://h/d',
    OBJECT_STORE_URL: 'file:///var/lib/mad/objects',
    CATALOG_SERVICE_KEY: JSON.stringify(keys.private.catalog),
  };
  const shared = { ...env, MAD_SERVICE_KEYS: JSON.stringify(keys.private) };
  expect(() => readCatalogConfig(shared)).toThrow(
    'MAD_SERVICE_KEYS: must hold public keys: the one of catalog is private',
  );
  const config = readCatalogConfig({ ...env, MAD_SERVICE_KEYS: JSON.stringify(keys.public) });
  expect(config).toMatchObject({ host: '127.0.0.1', port: 7002, database: { poolSize: 5 }, provisioning: 'eager' });
});

test('without identity a call says when to try again', async () => {
  const catalog = await startTestCatalog();
  try {
    const warm = await catalog.member(PipelineService, catalog.globex);
    await warm.listPipelineTemplates({ orgId: catalog.globex.orgId });
    await catalog.identity.close();
    const cold = await catalog.member(MoleculeService, catalog.acme);
    const error = await errorOf(cold.listMolecules({ orgId: catalog.acme.orgId }));
    expect([error.code, reasonOf(error)]).toEqual([Code.Unavailable, 'SERVICE_UNAVAILABLE']);
    expect(retryAfterMsOf(error)).toBeGreaterThan(0);
    await warm.listPipelineTemplates({ orgId: catalog.globex.orgId });
  } finally {
    await catalog.close();
  }
});

test('without its Redis everything works', async () => {
  const catalog = await startTestCatalog({ config: { redisUrl: 'redis://127.0.0.1:1' } });
  try {
    const client = await catalog.member(MoleculeService, catalog.acme);
    const { orgId } = catalog.acme;
    const rows = [{ smiles: 'CCO', name: 'ethanol' }];
    const { registered } = await client.registerMolecules({ orgId, requestId: uuidv7(), rows });
    expect(registered).toHaveLength(1);
  } finally {
    await catalog.close();
  }
});

test('a second start finds everything in place; a start that fails leaves nothing open', async () => {
  const catalog = await startTestCatalog();
  try {
    const second = await startCatalog({ ...catalog.config, port: 0 }, { logger: silent });
    await second.close();
    const bad = { ...catalog.config, port: 0, objectStoreUrl: 'ftp://bucket' };
    await expect(startCatalog(bad, { logger: silent })).rejects.toThrow('file: or s3: URLs');
    const superuser = { ...catalog.config, database: { ...catalog.config.database, url: catalog.database.adminUrl } };
    await expect(startCatalog({ ...superuser, port: 0 }, { logger: silent })).rejects.toThrow('superuser');
    const { rows } = await catalog.admin.query(
      `SELECT count(*)::int AS open FROM pg_stat_activity WHERE datname = $1 AND application_name = 'mad-catalog'`,
      [catalog.database.name],
    );
    expect((rows[0] as { open: number }).open).toBeLessThanOrEqual(catalog.config.database.poolSize);
  } finally {
    await catalog.close();
  }
});
