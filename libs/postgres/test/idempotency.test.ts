import { create, type Message } from '@bufbuild/protobuf';
import { Code } from '@connectrpc/connect';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import { errorMetadataOf, reasonOf } from '@mad/rpc';
import type { TestDatabase } from '@mad/testing';
import pg from 'pg';
import { clientOptions, deleteExpiredIdempotencyKeys, idempotent, type Database } from '../src/index.ts';
import { createNote } from './note-service.ts';
import { ACME, GLOBEX, notesDatabase, openNotes, SCHEMA } from './notes.ts';

let database: TestDatabase;
let db: Database;
let admin: pg.Client;

beforeAll(async () => {
  database = await notesDatabase();
  db = await openNotes(database);
  admin = new pg.Client(clientOptions(database.adminUrl));
  await admin.connect();
});

afterAll(async () => {
  await admin?.end();
  await db?.close();
  await database?.drop();
});

type Request = Message & { requestId: string };
type Response = Message & { noteId: string; secret: string };

let calls = 0;

/** What a handler does: makes a note once per request_id. The work's end may be held up or fail. */
async function call(
  fields: Record<string, unknown>,
  more: { orgId?: string; caller?: string; work?: () => Promise<void> } = {},
): Promise<Response> {
  const orgId = more.orgId ?? ACME;
  const request = create(createNote.input, fields) as Request;
  return db.inOrg(orgId, (tx) =>
    idempotent(tx, { schema: SCHEMA, orgId, method: createNote, request, caller: more.caller }, async () => {
      await more.work?.();
      calls += 1;
      return create(createNote.output, { noteId: uuidv7(), secret: 'shown once' }) as Response;
    }),
  ) as Promise<Response>;
}

test('a repeat returns the first answer and does nothing again, without the secret', async () => {
  const requestId = uuidv7();
  calls = 0;
  const first = await call({ title: 'a', requestId });
  const second = await call({ title: 'a', requestId });
  expect(calls).toBe(1);
  expect([first.secret, second.secret]).toEqual(['shown once', '']);
  expect(second.noteId).toBe(first.noteId);
});

test('a repeat that asks for something else is refused and the fields are named', async () => {
  const requestId = uuidv7();
  await call({ title: 'a', requestId, parts: [{ words: 'x' }] }, { caller: 'alice' });
  const refusal: unknown = await call({ title: 'b', requestId, parts: [{ words: 'y' }] }, { caller: 'alice' }).catch(
    (e: unknown) => e,
  );
  expect(refusal).toMatchObject({ code: Code.AlreadyExists });
  expect(reasonOf(refusal)).toBe('REQUEST_ID_REUSED');
  expect(errorMetadataOf(refusal)).toEqual({ fields: 'parts,title', request_id: requestId });
  await expect(call({ title: 'a', requestId, parts: [{ words: 'x' }] }, { caller: 'bob' })).rejects.toThrow(
    'caller differ',
  );
});

test('the order of a map is not part of what was asked; nor are secrets, of which nothing is kept', async () => {
  const requestId = uuidv7();
  const parts = (password: string) => [{ words: 'w', password }];
  const first = await call({ requestId, labels: { a: '1', b: '2' }, password: 'hunter2', parts: parts('deep') });
  const second = await call({ requestId, labels: { b: '2', a: '1' }, password: 'other', parts: parts('other') });
  expect(second.noteId).toBe(first.noteId);
  const { rows } = await admin.query(
    'SELECT field_hashes, response FROM catalog.idempotency_keys WHERE request_id = $1',
    [requestId],
  );
  expect(Object.keys(rows[0].field_hashes as object).sort()).toEqual(['labels', 'parts']);
  expect((rows[0].response as Buffer).toString('latin1')).not.toContain('shown once');
});

test('two at once: one works, the other waits for its answer', async () => {
  const requestId = uuidv7();
  calls = 0;
  const slowly = { work: () => new Promise<void>((settle) => setTimeout(settle, 100)) };
  const answers = await Promise.all([
    call({ requestId }, slowly),
    call({ requestId }, slowly),
    call({ requestId }, slowly),
  ]);
  expect(calls).toBe(1);
  expect(new Set(answers.map(({ noteId }) => noteId)).size).toBe(1);
});

test('a first call that failed leaves nothing behind', async () => {
  const requestId = uuidv7();
  await expect(call({ requestId }, { work: () => Promise.reject(new Error('failed')) })).rejects.toThrow('failed');
  expect((await call({ requestId })).secret).toBe('shown once');
});

test('organizations do not share keys, and an empty request_id guards nothing', async () => {
  const requestId = uuidv7();
  const acme = await call({ requestId });
  const globex = await call({ requestId }, { orgId: GLOBEX });
  expect(globex.noteId).not.toBe(acme.noteId);
  expect((await call({})).noteId).not.toBe((await call({})).noteId);
});

test('a call that concerns no organization is guarded too, under the second login', async () => {
  const request = create(createNote.input, { requestId: uuidv7() }) as Request;
  const make = () =>
    db.asSystem((tx) =>
      idempotent(tx, { schema: SCHEMA, orgId: undefined, method: createNote, request }, async () =>
        create(createNote.output, { noteId: uuidv7() }),
      ),
    ) as Promise<Response>;
  const first = await make();
  expect((await make()).noteId).toBe(first.noteId);
});

test('a key lives for a day: then the request counts as new, and the sweep removes it', async () => {
  const requestId = uuidv7();
  const first = await call({ title: 'a', requestId });
  const { rows } = await admin.query(
    `SELECT extract(epoch FROM expires_at - now())::int AS seconds FROM catalog.idempotency_keys WHERE request_id = $1`,
    [requestId],
  );
  expect(Math.abs(rows[0].seconds - 24 * 3600)).toBeLessThan(60);
  await admin.query('UPDATE catalog.idempotency_keys SET expires_at = now() - interval $$1 s$$ WHERE request_id = $1', [
    requestId,
  ]);
  const second = await call({ title: 'b', requestId });
  expect(second.noteId).not.toBe(first.noteId);
  await admin.query('UPDATE catalog.idempotency_keys SET expires_at = now() - interval $$1 s$$ WHERE request_id = $1', [
    requestId,
  ]);
  expect(await db.asSystem((tx) => deleteExpiredIdempotencyKeys(tx, SCHEMA))).toBe(1);
});
