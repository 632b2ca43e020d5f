import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { TestDatabase } from '@mad/testing';
import pg from 'pg';
import { clientOptions, selfCheck } from '../src/index.ts';
import { notesDatabase, openNotes, SCHEMA } from './notes.ts';

let database: TestDatabase;
let admin: pg.Client;

beforeAll(async () => {
  database = await notesDatabase();
  admin = new pg.Client(clientOptions(database.adminUrl));
  await admin.connect();
});

afterAll(async () => {
  await admin?.end();
  await database?.drop();
});

const LOGIN = `mad_test_login_${process.pid}`;
const PASSWORD = 'only-for-this-test';

/** Runs `fn` with a login of its own that the given SQL has spoilt; roles belong to the whole server, so no other test's. */
async function withLogin(spoil: string, fn: (pool: pg.Pool) => Promise<void>): Promise<void> {
  await admin.query(`CREATE ROLE ${LOGIN} LOGIN PASSWORD '${PASSWORD}'`);
  await admin.query(`GRANT CONNECT ON DATABASE ${database.name} TO ${LOGIN}`);
  await admin.query(`GRANT USAGE ON SCHEMA ${SCHEMA} TO ${LOGIN}`);
  const pool = new pg.Pool({ ...clientOptions(database.adminUrl), user: LOGIN, password: PASSWORD, max: 1 });
  // `end` does not wait for the server's side: the drop of the database may still cut a connection that is closing.
  pool.on('error', () => {});
  try {
    await admin.query(spoil);
    await fn(pool);
  } finally {
    await pool.end();
    await admin.query(`DROP OWNED BY ${LOGIN}; DROP ROLE ${LOGIN}`);
  }
}

test('a well-made login passes', async () => {
  const db = await openNotes(database);
  await db.close();
  await withLogin('SELECT 1', (pool) => selfCheck(pool, SCHEMA));
});

test.each([
  ['a superuser', `ALTER ROLE ${LOGIN} SUPERUSER`, 'is a superuser'],
  ['one that bypasses row-level security', `ALTER ROLE ${LOGIN} BYPASSRLS`, 'bypasses row-level security'],
  [
    'the owner of a table',
    `CREATE TABLE ${SCHEMA}.mine (); ALTER TABLE ${SCHEMA}.mine OWNER TO ${LOGIN}`,
    'owns table',
  ],
  [
    'the owner of a function',
    `CREATE FUNCTION ${SCHEMA}.f() RETURNS int RETURN 1; ALTER FUNCTION ${SCHEMA}.f() OWNER TO ${LOGIN}`,
    'owns function',
  ],
  ['a member of the owner', `GRANT mad_catalog_owner TO ${LOGIN}`, 'through the role mad_catalog_owner'],
  ['a member of a role that bypasses', `GRANT mad_reporting TO ${LOGIN}`, 'the login mad_reporting bypasses'],
])('a login that is %s is refused', async (_what, spoil, problem) => {
  await withLogin(spoil, async (pool) => {
    await expect(selfCheck(pool, SCHEMA)).rejects.toThrow(problem);
  });
});

test.each([
  ['without row-level security', 'SELECT 1'],
  ['that does not force it', `ALTER TABLE ${SCHEMA}.naked ENABLE ROW LEVEL SECURITY`],
])('a table with org_id %s is refused, by the public way in', async (_what, spoil) => {
  await admin.query(`CREATE TABLE ${SCHEMA}.naked (org_id uuid)`);
  try {
    await admin.query(spoil);
    await expect(openNotes(database)).rejects.toThrow('catalog.naked has org_id and does not force row-level security');
  } finally {
    await admin.query(`DROP TABLE ${SCHEMA}.naked`);
  }
});

test('a partition that lost its wall is refused', async () => {
  await admin.query(`ALTER TABLE ${SCHEMA}.comments_1 NO FORCE ROW LEVEL SECURITY`);
  try {
    await expect(openNotes(database)).rejects.toThrow('catalog.comments_1 has org_id');
  } finally {
    await admin.query(`ALTER TABLE ${SCHEMA}.comments_1 FORCE ROW LEVEL SECURITY`);
  }
});

test('a database that everybody may connect to is refused', async () => {
  await admin.query(`GRANT CONNECT ON DATABASE ${database.name} TO PUBLIC`);
  try {
    await expect(openNotes(database)).rejects.toThrow(`everybody may connect to the database ${database.name}`);
  } finally {
    await admin.query(`REVOKE CONNECT ON DATABASE ${database.name} FROM PUBLIC`);
  }
});

test('every problem is named at once', async () => {
  await withLogin(`ALTER ROLE ${LOGIN} BYPASSRLS; GRANT mad_catalog_owner TO ${LOGIN}`, async (pool) => {
    await expect(selfCheck(pool, SCHEMA)).rejects.toThrow(/bypasses[\s\S]*mad_catalog_owner/);
  });
});
