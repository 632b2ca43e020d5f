import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { pipeline } from 'node:stream/promises';
import { Readable } from 'node:stream';
import fc from 'fast-check';
import pg from 'pg';
import { from } from 'pg-copy-streams';
import { binaryChunks, uuidBytes, type CopyType, type CopyValue } from '../src/runs/copy.ts';
import { tenantDatabase, type TenantDatabase } from './support/tenant-database.ts';

/** What COPY stores is what Postgres reads back, of every type and for any value. */

let database: TenantDatabase;
let client: pg.Client;

beforeAll(async () => {
  database = await tenantDatabase();
  client = new pg.Client({ connectionString: database.adminUrl });
  await client.connect();
  await client.query(
    `CREATE TEMPORARY TABLE copied (no serial, a int2, b int4, c int8, d float8, e uuid, f text, g jsonb, h timestamptz)`,
  );
});

afterAll(async () => {
  await client.end();
  await database.drop();
});

const TYPES: CopyType[] = ['int2', 'int4', 'int8', 'float8', 'uuid', 'text', 'jsonb', 'timestamptz'];

const text = fc
  .string({
    unit: fc.oneof(
      fc.constantFrom('\n', '\t', '\\', '\\N', '"', 'é', '漢', '😀'),
      fc.string({ minLength: 1, maxLength: 1 }),
    ),
    maxLength: 60,
  })
  .map((some) => some.toWellFormed().replaceAll('\0', ''));
const long = fc
  .tuple(text, fc.integer({ min: 1, max: 5000 }))
  .map(([some, times]) => some.repeat(times).slice(0, 200_000).toWellFormed());
// Node 24 (V8 13.6) reads a key of one escaped character as "\\" once JSON.parse has met that key: what is stored is right.
const key = text.filter((some) => some.length !== 1 || !JSON.stringify(some).startsWith('"\\'));
const json = fc.dictionary(key, fc.oneof(text, fc.integer(), fc.boolean(), fc.constant(null)), { maxKeys: 5 });

const row = fc.record({
  a: fc.option(fc.integer({ min: -32_768, max: 32_767 })),
  b: fc.option(fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })),
  c: fc.option(fc.maxSafeInteger()),
  d: fc.option(fc.double()),
  e: fc.option(fc.uuid()),
  f: fc.option(fc.oneof({ weight: 9, arbitrary: text }, { weight: 1, arbitrary: long })),
  g: fc.option(json),
  h: fc.option(fc.date({ min: new Date('1900-01-01'), max: new Date('2200-01-01'), noInvalidDate: true })),
});

test('any rows come back as they went in', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(row, { maxLength: 50 }), fc.boolean(), async (rows, asBytes) => {
      await client.query('TRUNCATE copied');
      const values = rows.map(({ a, b, c, d, e, f, g, h }): CopyValue[] => [
        a,
        b,
        c,
        d,
        e !== null && asBytes ? uuidBytes(e) : e,
        f,
        g === null ? null : JSON.stringify(g),
        h,
      ]);
      const copy = from('COPY copied (a, b, c, d, e, f, g, h) FROM STDIN (FORMAT binary)');
      await pipeline(Readable.from(binaryChunks(TYPES, values)), client.query(copy));
      const read = await client.query<Record<string, unknown>>(
        'SELECT a, b, c::text, d, e, f, g, h FROM copied ORDER BY no',
      );
      expect(read.rows).toEqual(rows.map((one) => ({ ...one, c: one.c === null ? null : String(one.c) })));
      // What toEqual does not tell apart: the sign of zero.
      read.rows.forEach(({ d }, index) => expect(Object.is(d, rows[index]!.d)).toBe(true));
    }),
    { numRuns: 150 },
  );
});

test('chunks stay small, whatever the number of rows, and one array may serve for all rows', () => {
  const shared: CopyValue[] = [0, 'x'.repeat(100)];
  function* rows() {
    for (let no = 0; no < 100_000; no += 1) {
      shared[0] = no;
      yield shared;
    }
  }
  const sizes = [...binaryChunks(['int4', 'text'], rows())].map(({ length }) => length);
  expect(Math.max(...sizes)).toBeLessThan(128 * 1024);
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(19 + 100_000 * (2 + 8 + 104) + 2);
});

test('what is no UUID is not sent', () => {
  for (const wrong of ['', 'x', '01a1f000-0000-7000-8000-00000000000', '01a1f000-0000-7000-8000-00000000000g']) {
    expect(() => uuidBytes(wrong)).toThrow(RangeError);
  }
});
