import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { metadataDatabase, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import {
  clientOptions,
  cycleMigrations,
  defineMigration,
  entityDifferences,
  EntitySchema,
  listConstraints,
  migrate,
  migrationStatus,
  revert,
  schemaFingerprint,
  type MigrationClass,
  type MigratorOptions,
} from '../src/index.ts';
import { boss, comments, MIGRATIONS, NOTE_COLUMNS, NoteEntity, notes, notesDatabase, SCHEMA } from './notes.ts';

let database: TestDatabase;

beforeAll(async () => {
  database = await metadataDatabase({ services: [{ schema: SCHEMA, migrations: [] }] });
});

afterAll(async () => {
  await database?.drop();
});

function options(migrations: readonly MigrationClass[], more: Partial<MigratorOptions> = {}): MigratorOptions {
  return { url: database.url('mad_migrator'), ownerRole: 'mad_catalog_owner', schema: SCHEMA, migrations, ...more };
}

async function asAdmin(sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(clientOptions(database.adminUrl));
  await client.connect();
  try {
    return (await client.query(sql)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

test('a file name becomes the name TypeORM wants, and one without a date that exists is refused', () => {
  expect(notes.migrationName).toBe(`Notes${Date.UTC(2026, 0, 2, 3, 4)}`);
  expect(notes.migrationName).toMatch(/\d{13}$/);
  expect(defineMigration('file:///a/b/2026_12_31_2359_add_two_words.ts', { up: '', down: '' }).migrationName).toBe(
    `AddTwoWords${Date.UTC(2026, 11, 31, 23, 59)}`,
  );
  for (const name of ['add_words.ts', '2026_02_30_0000_x.ts', '2026_01_01_2460_x.ts', '2026_01_01_0000_Ä.ts']) {
    expect(() => defineMigration(name, { up: '', down: '' })).toThrow(name);
  }
  expect(notes.checksum).not.toBe(comments.checksum);
});

test('two migrations of the same minute are refused', async () => {
  const twin = defineMigration('2026_01_02_0304_other.ts', { up: 'SELECT 1', down: 'SELECT 1' });
  await expect(migrate(options([notes, twin]))).rejects.toThrow('two migrations have the same time');
});

test('up in order of time, one step, down again; what they make belongs to the owner', async () => {
  expect(await migrationStatus(options(MIGRATIONS))).toEqual({
    applied: [],
    pending: [notes, comments, boss].map(({ migrationName }) => migrationName),
    unknown: [],
  });
  expect(await migrate(options([boss, comments, notes], { to: notes.migrationName }))).toEqual([notes.migrationName]);
  const ran: string[] = [];
  await migrate(options([boss, comments, notes], { log: (line) => ran.push(line) }));
  expect(ran).toEqual([`catalog: ${comments.migrationName}`, `catalog: ${boss.migrationName}`]);
  expect(await migrate(options(MIGRATIONS))).toEqual([]);
  expect((await migrationStatus(options([notes]))).unknown).toEqual([comments.migrationName, boss.migrationName]);
  expect(
    await asAdmin(`SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('catalog', 'catalog_boss')`),
  ).toEqual([{ tableowner: 'mad_catalog_owner' }]);
  expect(await revert(options(MIGRATIONS), 2)).toBe(2);
  expect((await migrationStatus(options(MIGRATIONS))).applied).toEqual([notes.migrationName]);
  expect(await revert(options(MIGRATIONS), 5)).toBe(1);
  await expect(migrate(options(MIGRATIONS, { to: 'Nothing1' }))).rejects.toThrow('no migration is named Nothing1');
});

test('one that fails is undone and named; those before it stay', async () => {
  const broken = defineMigration('2026_02_01_0000_broken.ts', {
    up: 'CREATE TABLE catalog.half (a int); SELECT 1 / 0',
    down: 'DROP TABLE catalog.half',
  });
  await expect(migrate(options([notes, broken]))).rejects.toThrow(
    `migration ${broken.migrationName} failed: division by zero`,
  );
  expect(
    await asAdmin(`SELECT to_regclass('catalog.half') AS half, to_regclass('catalog.notes') IS NOT NULL AS notes`),
  ).toEqual([{ half: null, notes: true }]);
  await revert(options([notes]), 1);
});

test('a statement that must stand outside a transaction may', async () => {
  const index = defineMigration('2026_02_02_0000_index.ts', {
    up: 'CREATE INDEX CONCURRENTLY idx_notes_title ON catalog.notes (title)',
    down: 'DROP INDEX CONCURRENTLY catalog.idx_notes_title',
    transaction: false,
  });
  expect(await migrate(options([notes, index]))).toHaveLength(2);
  expect(await revert(options([notes, index]), 2)).toBe(2);
});

test('two migrators at once: each migration runs once', async () => {
  const both = await Promise.all([migrate(options(MIGRATIONS)), migrate(options(MIGRATIONS))]);
  expect(both.flat().sort()).toEqual(MIGRATIONS.map(({ migrationName }) => migrationName).sort());
  await revert(options(MIGRATIONS), MIGRATIONS.length);
});

test('up, down, up: the same schema again, and nothing in between', async () => {
  const { first, none, second, notUndone } = await cycleMigrations(options(MIGRATIONS));
  expect(notUndone).toBeUndefined();
  expect(first.length).toBeGreaterThan(20);
  expect(none).toEqual([]);
  expect(second).toEqual(first);
  expect(
    await asAdmin(
      `SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'catalog_boss' AND relname = 'job'`,
    ),
  ).toHaveLength(1);
});

test('up, down, up: a migration without a way back is named, also where a later or an earlier one hides it', async () => {
  const column = defineMigration('2026_02_03_0000_column.ts', {
    up: 'ALTER TABLE catalog.notes ADD COLUMN stars integer',
    down: '',
  });
  const harmless = defineMigration('2026_02_04_0000_harmless.ts', {
    up: 'CREATE INDEX idx_notes_stars ON catalog.notes (stars)',
    down: 'DROP INDEX catalog.idx_notes_stars',
  });
  const cycle = await cycleMigrations(options([...MIGRATIONS, column, harmless]));
  expect(cycle.notUndone).toBe(column.migrationName);
  await revert(options([...MIGRATIONS, column, harmless]), MIGRATIONS.length + 2);
  await migrate(options(MIGRATIONS));
});

test('the record of migrations cannot be rewritten by the logins', async () => {
  const client = new pg.Client(clientOptions(database.url('mad_catalog')));
  await client.connect();
  try {
    expect((await client.query('SELECT 1 FROM catalog.migrations')).rowCount).toBe(MIGRATIONS.length);
    await expect(client.query('DELETE FROM catalog.migrations')).rejects.toMatchObject({ code: '42501' });
  } finally {
    await client.end();
  }
});

test('entities equal migrations, and a difference is found in column, type, null and default', async () => {
  const differences = (...entities: EntitySchema[]): Promise<string[]> =>
    entityDifferences({ url: database.adminUrl, schema: SCHEMA, entities });
  expect(await differences(NoteEntity)).toEqual([]);
  const changed = (columns: object): EntitySchema =>
    new EntitySchema({ name: 'Note', tableName: 'notes', columns: { ...NOTE_COLUMNS, ...columns } });
  const found = async (columns: object): Promise<string> => (await differences(changed(columns))).join('\n');
  expect(await found({ extra: { type: 'int', nullable: true } })).toContain('ADD "extra" integer');
  expect(await found({ title: { type: 'int' } })).toContain('"title"');
  expect(await found({ title: { type: 'text', nullable: true } })).toContain('"title" DROP NOT NULL');
  expect(await found({ visibility: { type: 'text', default: 'public' } })).toContain(`SET DEFAULT 'public'`);
});

test('constraints are listed by name, once for all partitions', async () => {
  const constraints = await listConstraints(database.adminUrl, SCHEMA);
  expect(constraints.map(({ table, name, kind }) => [table, name, kind])).toEqual([
    ['comments', 'comments_note_id_fkey', 'FOREIGN KEY'],
    ['comments', 'comments_pkey', 'PRIMARY KEY'],
    ['idempotency_keys', 'idempotency_keys_field_hashes_check', 'CHECK'],
    ['idempotency_keys', 'idempotency_keys_pkey', 'PRIMARY KEY'],
    ['notes', 'notes_org_id_title_key', 'UNIQUE'],
    ['notes', 'notes_pkey', 'PRIMARY KEY'],
    ['notes', 'notes_title_check', 'CHECK'],
  ]);
});

test.each([
  ['a column', 'ALTER TABLE catalog.notes ADD COLUMN drift int', 'ALTER TABLE catalog.notes DROP COLUMN drift'],
  ['a right', 'GRANT SELECT ON catalog.notes TO PUBLIC', 'REVOKE SELECT ON catalog.notes FROM PUBLIC'],
  ['a policy', 'CREATE POLICY drift ON catalog.notes USING (true)', 'DROP POLICY drift ON catalog.notes'],
  [
    'forced security',
    'ALTER TABLE catalog.notes NO FORCE ROW LEVEL SECURITY',
    'ALTER TABLE catalog.notes FORCE ROW LEVEL SECURITY',
  ],
  ['an index', 'CREATE INDEX drift ON catalog.notes (size)', 'DROP INDEX catalog.drift'],
  ['a comment', `COMMENT ON COLUMN catalog.notes.title IS 'drift'`, 'COMMENT ON COLUMN catalog.notes.title IS NULL'],
  ['a function', 'CREATE FUNCTION catalog.drift() RETURNS int RETURN 1', 'DROP FUNCTION catalog.drift'],
  ['a type', `CREATE TYPE catalog.drift AS ENUM ('a')`, 'DROP TYPE catalog.drift'],
])('the fingerprint shows drift in %s, and nothing once it is undone', async (_what, drift, undo) => {
  const before = await schemaFingerprint(database.adminUrl, SCHEMA);
  await asAdmin(drift);
  expect(await schemaFingerprint(database.adminUrl, SCHEMA)).not.toEqual(before);
  await asAdmin(undo);
  expect(await schemaFingerprint(database.adminUrl, SCHEMA)).toEqual(before);
});

test('two databases of the same migrations have the same fingerprint', async () => {
  const other = await notesDatabase();
  expect(await schemaFingerprint(other.adminUrl, SCHEMA)).toEqual(await schemaFingerprint(database.adminUrl, SCHEMA));
  await other.drop();
});
