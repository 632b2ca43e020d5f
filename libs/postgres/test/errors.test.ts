import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Code, ConnectError, createClient, createRouterTransport } from '@connectrpc/connect';
import { Health, HealthCheckResponse_ServingStatus } from '@mad/proto/health';
import { reasonOf, retryAfterMsOf, violationsOf } from '@mad/rpc';
import type { TestDatabase } from '@mad/testing';
import { openDatabase, pgErrorToRpc, postgresErrorInterceptor, type Database } from '../src/index.ts';
import { ACME, NoteEntity, notesDatabase, openNotes, SCHEMA } from './notes.ts';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await notesDatabase();
  db = await openNotes(database);
  await db.inOrg(ACME, async (tx) => {
    await tx.execute(`INSERT INTO notes (note_id, org_id, title) VALUES ($1, $1, 'taken')`, [ACME]);
    await tx.execute(`INSERT INTO comments (org_id, seq, note_id, words) VALUES ($1, 1, $1, 'w')`, [ACME]);
  });
});

afterAll(async () => {
  await db?.close();
  await database?.drop();
});

const MESSAGES = { notes_title_check: ['note.title', 'must not be empty'] } as const;

async function translated(sql: string, params?: unknown[]): Promise<ConnectError | undefined> {
  const error: unknown = await db.inOrg(ACME, (tx) => tx.query(sql, params)).catch((thrown: unknown) => thrown);
  return pgErrorToRpc(error, MESSAGES);
}

test.each([
  [
    'unique',
    `INSERT INTO notes (org_id, title) VALUES ('${ACME}', 'taken')`,
    Code.AlreadyExists,
    'title: is already taken',
  ],
  [
    'check, with our words',
    `INSERT INTO notes (org_id, title) VALUES ('${ACME}', '')`,
    Code.InvalidArgument,
    'note.title: must not be empty',
  ],
  [
    'not null',
    `INSERT INTO notes (org_id, title) VALUES ('${ACME}', NULL)`,
    Code.InvalidArgument,
    'title: is required',
  ],
  [
    'missing parent',
    `INSERT INTO comments VALUES ('${ACME}', 2, gen_random_uuid(), 'w')`,
    Code.InvalidArgument,
    'note_id: does not exist',
  ],
  ['parent in use', `DELETE FROM notes WHERE note_id = '${ACME}'`, Code.FailedPrecondition, 'note_id: is in use'],
])('%s: the field is named', async (_what, sql, code, message) => {
  const error = await translated(sql);
  expect(error).toMatchObject({ code, rawMessage: message });
  expect(error?.cause).toBeInstanceOf(Error);
});

test('details a caller can branch on', async () => {
  expect(reasonOf(await translated(`INSERT INTO notes (org_id, title) VALUES ('${ACME}', 'taken')`))).toBe(
    'ALREADY_EXISTS',
  );
  expect(reasonOf(await translated(`DELETE FROM notes WHERE note_id = '${ACME}'`))).toBe('IN_USE');
  const check = await translated(`INSERT INTO notes (org_id, title) VALUES ('${ACME}', '')`);
  expect(violationsOf(check)).toEqual([{ field: 'note.title', description: 'must not be empty' }]);
});

test("a NUL in a text and a malformed UUID are the caller's fault", async () => {
  expect(await translated('SELECT $1::text', ['a\0b'])).toMatchObject({ code: Code.InvalidArgument });
  expect(await translated('SELECT $1::uuid', ['no'])).toMatchObject({ code: Code.InvalidArgument });
});

test("TypeORM's wrapped errors count too", async () => {
  const error: unknown = await db
    .inOrg(ACME, (tx) => tx.repository(NoteEntity).insert({ orgId: ACME, title: 'taken' }))
    .catch((thrown: unknown) => thrown);
  expect((error as Error).name).toBe('QueryFailedError');
  expect(pgErrorToRpc(error)).toMatchObject({ code: Code.AlreadyExists });
});

test('conflicts and a database that is away say when to try again', async () => {
  const conflict = await translated(`DO $$ BEGIN RAISE serialization_failure; END $$`);
  expect([conflict?.code, reasonOf(conflict), retryAfterMsOf(conflict)]).toEqual([Code.Aborted, 'STATE_CONFLICT', 100]);
  const options = { url: 'postgres://a:b@127.0.0.1:9/x', schema: SCHEMA, applicationName: 'away' };
  const away: unknown = await openDatabase(options).catch((thrown: unknown) => thrown);
  expect([pgErrorToRpc(away)?.code, reasonOf(pgErrorToRpc(away))]).toEqual([Code.Unavailable, 'DATABASE_UNAVAILABLE']);
  const crowded = pgErrorToRpc(Object.assign(new Error('sorry, too many clients already'), { code: '53300' }));
  expect([crowded?.code, reasonOf(crowded)]).toEqual([Code.ResourceExhausted, 'CONNECTION_BUDGET_EXHAUSTED']);
  expect(await translated('SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)')).toMatchObject({
    code: Code.DeadlineExceeded,
  });
});

test('bugs of ours stay internal', async () => {
  expect(await translated('SELECT nonsense')).toBeUndefined();
  expect(await translated(`INSERT INTO notes (org_id, title) VALUES (gen_random_uuid(), 'foreign')`)).toBeUndefined();
  expect(pgErrorToRpc(new Error('no database error'))).toBeUndefined();
  expect(pgErrorToRpc(new ConnectError('answered already', Code.NotFound))).toBeUndefined();
});

test('the interceptor translates in unary and streaming methods', async () => {
  const transport = createRouterTransport(
    ({ service }) => {
      service(Health, {
        check: () =>
          db.inOrg(ACME, async (tx) => {
            await tx.query(`INSERT INTO notes (org_id, title) VALUES ('${ACME}', 'taken')`);
            return {};
          }),
        async *watch() {
          yield { status: HealthCheckResponse_ServingStatus.SERVING };
          await db.inOrg(ACME, (tx) => tx.query(`INSERT INTO notes (org_id, title) VALUES ('${ACME}', '')`));
        },
      });
    },
    { router: { interceptors: [postgresErrorInterceptor(MESSAGES)] } },
  );
  const client = createClient(Health, transport);
  await expect(client.check({})).rejects.toMatchObject({ code: Code.AlreadyExists });
  const received: number[] = [];
  const reading = (async () => {
    for await (const { status } of client.watch({})) received.push(status);
  })();
  await expect(reading).rejects.toMatchObject({ code: Code.InvalidArgument });
  expect(received).toEqual([1]);
});
