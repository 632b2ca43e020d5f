import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { TestDatabase } from '@mad/testing';
import pg from 'pg';
import { clientOptions, type Database } from '../src/index.ts';
import { ACME, GLOBEX, notesDatabase, openNotes } from './notes.ts';

let database: TestDatabase;
let db: Database;
let admin: pg.Client;

beforeAll(async () => {
  database = await notesDatabase();
  db = await openNotes(database);
  admin = new pg.Client(clientOptions(database.adminUrl));
  await admin.connect();
  await admin.query(
    `INSERT INTO catalog.notes (org_id, title, visibility) VALUES
       ($1, 'acme private', 'private'), ($2, 'globex private', 'private'), ($2, 'globex public', 'public'), (NULL, 'built in', 'private')`,
    [ACME, GLOBEX],
  );
});

afterAll(async () => {
  await admin?.end();
  await db?.close();
  await database?.drop();
});

const FILTERED = 'SELECT title FROM notes WHERE org_id = $1 ORDER BY title';
const UNFILTERED = 'SELECT title FROM notes ORDER BY title';

async function seen(sql: string, params?: unknown[]): Promise<string[]> {
  const rows = await db.inOrg(ACME, (tx) => tx.query<{ title: string }>(sql, params));
  return rows.map(({ title }) => title);
}

test('with the query filter removed, row-level security alone keeps organizations apart', async () => {
  expect(await seen(UNFILTERED)).toEqual(['acme private', 'built in', 'globex public']);
});

test('with row-level security removed, the query filter alone keeps organizations apart', async () => {
  await admin.query('ALTER TABLE catalog.notes DISABLE ROW LEVEL SECURITY');
  try {
    expect(await seen(UNFILTERED)).toContain('globex private'); // the wall is really gone
    expect(await seen(FILTERED, [ACME])).toEqual(['acme private']);
  } finally {
    await admin.query('ALTER TABLE catalog.notes ENABLE ROW LEVEL SECURITY');
  }
});

test('a row can neither be written for another organization nor moved, changed or deleted there', async () => {
  const refused = { code: '42501' };
  const write = (sql: string, params: unknown[]) => db.inOrg(ACME, (tx) => tx.execute(sql, params));
  await expect(write(`INSERT INTO notes (org_id, title) VALUES ($1, 'x')`, [GLOBEX])).rejects.toMatchObject(refused);
  await expect(write(`INSERT INTO notes (org_id, title) VALUES (NULL, $1)`, ['x'])).rejects.toMatchObject(refused);
  await expect(write('UPDATE notes SET org_id = $1', [GLOBEX])).rejects.toMatchObject(refused);
  expect(await write(`UPDATE notes SET title = 'taken' WHERE org_id = $1`, [GLOBEX])).toBe(0);
  expect(await write('DELETE FROM notes WHERE org_id = $1', [GLOBEX])).toBe(0);
  // Readable is not writable: neither the built-in rows nor another's public ones.
  expect(await write(`UPDATE notes SET title = $1 WHERE org_id IS NULL OR visibility = 'public'`, ['taken'])).toBe(0);
});

test('the second login sees every organization, where the table says so', async () => {
  const rows = await db.asSystem((tx) => tx.query('SELECT 1 FROM notes'));
  expect(rows).toHaveLength(4);
  await expect(
    db.asSystem((tx) =>
      tx.execute(`INSERT INTO comments (org_id, seq, note_id, words) SELECT $1, 1, note_id, 'w' FROM notes LIMIT 1`, [
        ACME,
      ]),
    ),
  ).rejects.toMatchObject({ code: '42501' });
});

test('partitions cannot be read or written past the policies of their parent', async () => {
  await admin.query(
    `INSERT INTO catalog.comments (org_id, seq, note_id, words) SELECT org_id, 1, note_id, 'words' FROM catalog.notes WHERE org_id = $1 LIMIT 1`,
    [ACME],
  );
  await db.inOrg(ACME, async (tx) => {
    expect(await tx.query('SELECT words FROM comments')).toEqual([{ words: 'words' }]);
    expect(await tx.query('SELECT words FROM comments_0 UNION ALL SELECT words FROM comments_1')).toEqual([]);
  });
  expect(await db.inOrg(GLOBEX, (tx) => tx.query('SELECT words FROM comments'))).toEqual([]);
});

test('an append-only table takes rows and keeps them', async () => {
  await db.inOrg(ACME, (tx) =>
    tx.execute(
      `INSERT INTO comments (org_id, seq, note_id, words) SELECT $1, 2, note_id, 'more' FROM notes WHERE org_id = $1`,
      [ACME],
    ),
  );
  for (const sql of [
    `UPDATE comments SET words = 'changed'`,
    'DELETE FROM comments',
    'DELETE FROM comments_0',
    'TRUNCATE comments',
  ]) {
    await expect(db.inOrg(ACME, (tx) => tx.execute(sql))).rejects.toMatchObject({ code: '42501' });
  }
});

test('one service sees nothing of another, and no login sees the other database', async () => {
  await expect(openNotes(database, { url: database.url('mad_identity'), systemUrl: undefined })).rejects.toThrow(
    /permission denied for database/,
  );
  const stranger = new pg.Client({ ...clientOptions(database.url('mad_catalog')), database: 'postgres' });
  await expect(stranger.connect()).rejects.toMatchObject({ code: '42501' });
});
