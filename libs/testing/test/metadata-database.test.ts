import { expect, test } from '@jest/globals';
import { clientOptions, defineMigration } from '@mad/postgres';
import pg from 'pg';
import { metadataDatabase, testCluster } from '../src/index.ts';

const one = defineMigration('2026_01_01_0000_one.ts', {
  up: 'CREATE TABLE catalog.one (a int)',
  down: 'DROP TABLE catalog.one',
});
const changed = defineMigration('2026_01_01_0000_one.ts', {
  up: 'CREATE TABLE catalog.one (a int, b int)',
  down: 'DROP TABLE catalog.one',
});

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(clientOptions(url));
  await client.connect();
  try {
    return (await client.query(sql)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

const COLUMNS = `SELECT column_name FROM information_schema.columns WHERE table_name = 'one' ORDER BY 1`;

test('databases are clones of one template: quick, apart, and made anew when a migration changes', async () => {
  const services = [{ schema: 'catalog', migrations: [one] }];
  const [first, second] = await Promise.all([metadataDatabase({ services }), metadataDatabase({ services })]);
  const began = performance.now();
  const third = await metadataDatabase({ services });
  expect(performance.now() - began).toBeLessThan(2_000);
  await query(first.url('mad_catalog'), 'INSERT INTO one VALUES (1)');
  expect(await query(first.url('mad_catalog_system'), 'SELECT a FROM one')).toEqual([{ a: 1 }]);
  expect(await query(second.url('mad_catalog'), 'SELECT a FROM one')).toEqual([]);
  expect(await query(third.adminUrl, COLUMNS)).toHaveLength(1);

  const other = await metadataDatabase({ services: [{ schema: 'catalog', migrations: [changed] }] });
  expect(await query(other.adminUrl, COLUMNS)).toHaveLength(2);

  const templates = await query(
    testCluster().adminUrl,
    `SELECT datallowconn FROM pg_database WHERE datname ~ '^mad_test_template_[0-9a-f]+$'`,
  );
  expect(templates.length).toBeGreaterThanOrEqual(2);
  expect(templates.some(({ datallowconn }) => datallowconn)).toBe(false);

  await Promise.all([first, second, third, other].map((database) => database.drop()));
  await first.drop();
  await expect(query(first.adminUrl, 'SELECT 1')).rejects.toMatchObject({ code: '3D000' });
});
