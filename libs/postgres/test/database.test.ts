import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import type { TestDatabase } from '@mad/testing';
import pg from 'pg';
import { acquire, clientOptions, createPool, type Database } from '../src/index.ts';
import { ACME, GLOBEX, NoteEntity, notesDatabase, openNotes } from './notes.ts';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await notesDatabase();
  db = await openNotes(database);
});

afterEach(async () => {
  await db.asSystem((tx) => tx.execute('DELETE FROM notes'));
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const insert = 'INSERT INTO notes (org_id, title, size) VALUES ($1, $2, $3)';

async function titles(orgId: string): Promise<string[]> {
  const rows = await db.inOrg(orgId, (tx) =>
    tx.query<{ title: string }>('SELECT title FROM notes WHERE org_id = $1 ORDER BY title', [orgId]),
  );
  return rows.map(({ title }) => title);
}

test('a transaction commits what its callback did, and counts rows', async () => {
  const written = await db.inOrg(ACME, async (tx) => {
    await tx.execute(insert, [ACME, 'one', 1]);
    await tx.execute(insert, [ACME, 'two', 2]);
    return tx.execute('UPDATE notes SET size = size + 1 WHERE org_id = $1', [ACME]);
  });
  expect(written).toBe(2);
  expect(await titles(ACME)).toEqual(['one', 'two']);
  expect(await titles(GLOBEX)).toEqual([]);
});

test('bigint arrives as a number, and one beyond 2^53 is an error', async () => {
  await db.inOrg(ACME, async (tx) => {
    expect(await tx.query('SELECT count(*) AS n, 5::bigint AS five FROM notes WHERE org_id = $1', [ACME])).toEqual([
      { n: 0, five: 5 },
    ]);
  });
  await expect(db.inOrg(ACME, (tx) => tx.query(`SELECT 9007199254740993::bigint`))).rejects.toThrow('beyond 2^53');
});

test('what a callback threw after writing is undone, and the same error comes out', async () => {
  const failure = new Error('changed my mind');
  await expect(
    db.inOrg(ACME, async (tx) => {
      await tx.execute(insert, [ACME, 'gone', 1]);
      throw failure;
    }),
  ).rejects.toBe(failure);
  expect(await titles(ACME)).toEqual([]);
});

test('a failed statement that the callback ignored does not look like a commit', async () => {
  await expect(
    db.inOrg(ACME, async (tx) => {
      await tx.execute(insert, [ACME, 'gone', 1]);
      await tx.query('SELECT 1 / 0').catch(() => undefined);
    }),
  ).rejects.toThrow('a failed statement was ignored');
  expect(await titles(ACME)).toEqual([]);
});

test('repositories work inside the transaction and share its end', async () => {
  await db.inOrg(ACME, async (tx) => {
    const repository = tx.repository(NoteEntity);
    const saved = await repository.save(repository.create({ orgId: ACME, title: 'kept', size: 7 }));
    expect(await tx.query('SELECT title FROM notes WHERE note_id = $1', [saved.noteId])).toEqual([{ title: 'kept' }]);
    expect(await repository.findOneBy({ noteId: saved.noteId })).toMatchObject({ title: 'kept', size: 7, label: null });
  });
  await expect(
    db.inOrg(ACME, async (tx) => {
      await tx.repository(NoteEntity).save({ orgId: ACME, title: 'saved, then undone' });
      throw new Error('undo');
    }),
  ).rejects.toThrow('undo');
  expect(await titles(ACME)).toEqual(['kept']);
});

test('a read-only transaction cannot write', async () => {
  await expect(db.inOrg(ACME, (tx) => tx.execute(insert, [ACME, 'x', 1]), { readOnly: true })).rejects.toMatchObject({
    code: '25006',
  });
});

test('an organization that is no UUID is refused before anything is sent', async () => {
  await expect(db.inOrg(`'; DROP TABLE notes; --`, async () => 1)).rejects.toThrow(TypeError);
});

test('the organization of one transaction is gone in the next on the same connection', async () => {
  const single = await openNotes(database, { poolSize: 1 });
  try {
    await single.inOrg(ACME, (tx) => tx.execute(insert, [ACME, 'mine', 1]));
    const pool = createPool({ url: database.url('mad_catalog'), max: 1, applicationName: 'bare' });
    await pool.query(`BEGIN; SELECT set_config('app.current_org_id', '${ACME}', true); COMMIT`);
    // The setting is now an empty string, which must mean "nobody" and must not be an error.
    expect((await pool.query(`SELECT current_setting('app.current_org_id', true) AS org`)).rows).toEqual([{ org: '' }]);
    expect((await pool.query('SELECT 1 FROM notes')).rowCount).toBe(0);
    await pool.end();
  } finally {
    await single.close();
  }
});

test('aborting cancels the statement on the server and throws the reason', async () => {
  const abort = new AbortController();
  const reason = new Error('the caller went away');
  const began = Date.now();
  setTimeout(() => abort.abort(reason), 50);
  await expect(db.inOrg(ACME, (tx) => tx.query('SELECT pg_sleep(20)'), { signal: abort.signal })).rejects.toBe(reason);
  expect(Date.now() - began).toBeLessThan(2_000);
  const running = await db.asSystem((tx) =>
    tx.query(
      `SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(20)%' AND state = 'active' AND pid <> pg_backend_pid()`,
    ),
  );
  expect(running).toEqual([]);
  await expect(db.inOrg(ACME, async () => 1, { signal: abort.signal })).rejects.toBe(reason);
  expect(await db.inOrg(ACME, async () => 'still usable')).toBe('still usable');
});

test('a statement beyond the time limit is cancelled', async () => {
  const impatient = await openNotes(database, { statementTimeoutMs: 50, systemUrl: undefined });
  await expect(impatient.inOrg(ACME, (tx) => tx.query('SELECT pg_sleep(5)'))).rejects.toMatchObject({ code: '57014' });
  await expect(impatient.asSystem(async () => 1)).rejects.toThrow('no second login is configured');
  await impatient.close();
});

test('statements with parameters are prepared once per connection, unless the URL forbids it', async () => {
  const prepared = async (prepare: boolean): Promise<number> => {
    const url = new URL(database.url('mad_catalog'));
    url.searchParams.set('prepare', String(prepare));
    const one = await openNotes(database, { url: url.href, poolSize: 1, systemUrl: undefined });
    try {
      for (let i = 0; i < 3; i += 1) await one.inOrg(ACME, (tx) => tx.query('SELECT $1::int AS prepared_probe', [i]));
      const [row] = await one.inOrg(ACME, (tx) =>
        tx.query<{ n: number }>(
          `SELECT count(*) AS n FROM pg_prepared_statements WHERE statement LIKE '%prepared_probe'`,
        ),
      );
      return row!.n;
    } finally {
      await one.close();
    }
  };
  expect(await prepared(true)).toBe(1);
  expect(await prepared(false)).toBe(0);
});

test('a statement whose table changed under it fails once and works on the next call', async () => {
  const one = await openNotes(database, { url: database.url('mad_catalog'), poolSize: 1, systemUrl: undefined });
  const owner = new pg.Client(clientOptions(database.adminUrl));
  await owner.connect();
  try {
    await owner.query('CREATE TABLE catalog.shapes (a int); GRANT SELECT ON catalog.shapes TO mad_catalog');
    const read = (): Promise<unknown[]> =>
      one.inOrg(ACME, (tx) => tx.query('SELECT * FROM shapes WHERE $1::int = 1', [1]));
    await read();
    await owner.query('ALTER TABLE catalog.shapes ADD COLUMN b int');
    await expect(read()).rejects.toMatchObject({ code: '0A000' });
    expect(await read()).toEqual([]);
  } finally {
    await owner.query('DROP TABLE IF EXISTS catalog.shapes');
    await owner.end();
    await one.close();
  }
});

test('an idle connection that the server dropped is found out before it is used', async () => {
  const pool = createPool({ url: database.url('mad_catalog'), max: 1, applicationName: 'idle', checkAfterMs: 0 });
  const first = await acquire(pool);
  const { rows } = await first.query('SELECT pg_backend_pid() AS pid');
  first.release();
  // The pool hears of a dropped connection in time here, so the client is made deaf: as behind a silent firewall.
  first.removeAllListeners('error');
  first.on('error', () => undefined);
  await db.asSystem((tx) => tx.query('SELECT 1'));
  const admin = new pg.Client(clientOptions(database.adminUrl));
  await admin.connect();
  await admin.query('SELECT pg_terminate_backend($1)', [rows[0].pid]);
  await admin.end();
  const second = await acquire(pool);
  expect((await second.query('SELECT 1 AS alive')).rows).toEqual([{ alive: 1 }]);
  second.release();
  await pool.end();
});

test('a replica answers reads that may lag, and one that does not answer is passed over', async () => {
  const withReplica = await openNotes(database, { readUrl: database.url('mad_catalog') });
  const name = (tx: { query<R>(sql: string): Promise<R[]> }): Promise<{ name: string }[]> =>
    tx.query(`SELECT current_setting('application_name') AS name`);
  const acme = ACME.replaceAll('-', '');
  expect(await withReplica.inOrg(ACME, name, { readOnly: true, mayLag: true })).toEqual([
    { name: `notes-read/${acme}/` },
  ]);
  expect(await withReplica.inOrg(ACME, name, { readOnly: true })).toEqual([{ name: `notes/${acme}/` }]);
  expect(await withReplica.inOrg(ACME, name)).toEqual([{ name: `notes/${acme}/` }]);
  await withReplica.close();
});

test('ping and connection counts', async () => {
  expect(await db.ping()).toBeGreaterThan(0);
  const counts = db.connections();
  expect(counts.open).toBeGreaterThan(0);
  expect(counts).toMatchObject({ idle: counts.open, waiting: 0 });
});
