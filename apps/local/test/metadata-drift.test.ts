import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { catalogMigrations } from '@mad/catalog';
import { identityMigrations } from '@mad/identity';
import { clientOptions } from '@mad/postgres';
import { provisionerMigrations } from '@mad/provisioner';
import { metadataDatabase, testCluster, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import { refuseMetadataDrift } from '../src/metadata-drift.ts';

const SLOW = 120_000;

let database: TestDatabase;
let admin: pg.Client;

beforeAll(async () => {
  const services = [
    { schema: 'identity', migrations: identityMigrations },
    { schema: 'catalog', migrations: catalogMigrations },
    { schema: 'provisioner', migrations: provisionerMigrations },
  ];
  database = await metadataDatabase({ services });
  admin = new pg.Client(clientOptions(database.adminUrl));
  await admin.connect();
}, SLOW);

afterAll(async () => {
  await admin?.end();
  await database?.drop();
});

const check = (one = database): Promise<void> =>
  refuseMetadataDrift({
    adminUrl: testCluster().adminUrl,
    migrateUrl: one.url('mad_migrator'),
    database: one.name,
  });

test('a metadata database that is what its migrations make may be migrated', () => check(), SLOW);

test.each([
  ['DROP INDEX provisioner.idx_operations_started_at', 'provisioner: index idx_operations_started_at is missing'],
  ['ALTER TABLE catalog.molecules ADD COLUMN odd text', 'catalog: column molecules.odd is unexpected'],
  ['GRANT DELETE ON identity.users TO PUBLIC', 'identity: rights table users is different'],
])(
  'one where somebody ran %s by hand may not, and the object is named',
  async (sql, expected) => {
    await admin.query(`BEGIN; ${sql}; COMMIT`);
    await expect(check()).rejects.toThrow(expected);
  },
  SLOW,
);

test('what it made to compare with is gone', async () => {
  const { rows } = await admin.query(`SELECT datname FROM pg_database WHERE datname = $1`, [
    `${database.name}_expected`,
  ]);
  expect(rows).toEqual([]);
});

test(
  'a migration that came into the trail before others that ran is still to come, and no drift',
  async () => {
    const ran = catalogMigrations.filter(({ migrationName }) => !migrationName.startsWith('MaxAge'));
    expect(ran).toHaveLength(catalogMigrations.length - 1);
    expect(ran.at(-1)).toBe(catalogMigrations.at(-1));
    const behind = await metadataDatabase({
      services: [
        { schema: 'identity', migrations: identityMigrations },
        { schema: 'catalog', migrations: ran },
        { schema: 'provisioner', migrations: provisionerMigrations },
      ],
    });
    try {
      await check(behind);
    } finally {
      await behind.drop();
    }
  },
  SLOW,
);
