import { randomBytes } from 'node:crypto';
import { Readable, Writable } from 'node:stream';
import { describe, expect, test } from '@jest/globals';
import { uuidv7 } from '@mad/process';
import fc from 'fast-check';
import { ArchiveError } from '../src/backups/archive-error.ts';
import type { ArchiveHeader, ArchiveManifest, PlannedTable } from '../src/backups/archive-format.ts';
import { ArchiveReader } from '../src/backups/archive-reader.ts';
import { writeArchive } from '../src/backups/archive-writer.ts';

const SECRET = randomBytes(32);

function headerOf(archiveId = uuidv7(), orgId = uuidv7()): ArchiveHeader {
  return {
    archive_id: archiveId,
    org_id: orgId,
    kind: 'tenant',
    key_version: 1,
    salt: randomBytes(32).toString('base64'),
    cipher: 'aes-256-gcm',
    compression: 'zstd',
    rows: 'copy-text',
  };
}

const tableOf = (name: string): PlannedTable => ({ schema: 's', name, columns: ['a'], partition_of: '', bound: '' });

/** An archive of tables with these rows, each given in some pieces. */
async function archive(header: ArchiveHeader, tables: Buffer[][]): Promise<Buffer> {
  const plan = {
    snapshot_at: '2026-01-01T00:00:00Z',
    generation: 1,
    postgres: '16',
    schemas: [],
    tables: tables.map((_, index) => tableOf(`t${index}`)),
  };
  const source = {
    plan,
    rows: ({ name }: PlannedTable) =>
      Object.assign(Readable.from(tables[Number(name.slice(1))]!), {
        rowCount: tables[Number(name.slice(1))]!.length,
      }),
    sequences: async () => [{ schema: 's', name: 'q', last_value: '7', is_called: true }],
  };
  const pieces: Buffer[] = [];
  for await (const piece of writeArchive({ header, secret: SECRET, source })) pieces.push(piece);
  return Buffer.concat(pieces);
}

function* cut(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function read(
  bytes: Buffer,
  { archive_id: archiveId, org_id: orgId }: ArchiveHeader,
  { secret = SECRET, size = 1_000 } = {},
): Promise<{ rows: Buffer[]; manifest: ArchiveManifest }> {
  const reader = await ArchiveReader.open(Readable.from(cut(bytes, size)), { archiveId, orgId }, async () => secret);
  const rows: Buffer[] = [];
  for (const _ of reader.plan.tables) {
    const got: Buffer[] = [];
    const into = new Writable({
      write(chunk: Buffer, _encoding, done) {
        got.push(chunk);
        done();
      },
    });
    await reader.table(into);
    rows.push(Buffer.concat(got));
  }
  return { rows, manifest: await reader.finish() };
}

const faultOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: unknown) => (error instanceof ArchiveError ? error.fault : String(error)),
  );

const anyTables = fc.array(
  fc.array(
    fc.uint8Array({ maxLength: 3_000 }).map((bytes) => Buffer.from(bytes)),
    { maxLength: 5 },
  ),
  {
    maxLength: 4,
  },
);

describe('an archive', () => {
  test('gives back what went in, however it is cut into pieces', async () => {
    await fc.assert(
      fc.asyncProperty(anyTables, fc.integer({ min: 1, max: 5_000 }), async (tables, size) => {
        const header = headerOf();
        const { rows, manifest } = await read(await archive(header, tables), header, { size });
        expect(rows).toEqual(tables.map((pieces) => Buffer.concat(pieces)));
        expect(manifest.tables.map((table) => table.rows)).toEqual(tables.map((pieces) => pieces.length));
        expect(manifest.sequences).toEqual([{ schema: 's', name: 'q', last_value: '7', is_called: true }]);
      }),
      { numRuns: 60 },
    );
  });

  test('with any bit flipped, any end cut off or anything added is refused by name', async () => {
    await fc.assert(
      fc.asyncProperty(anyTables, fc.nat(), fc.integer({ min: 0, max: 7 }), async (tables, where, bit) => {
        const header = headerOf();
        const whole = await archive(header, tables);
        const at = where % whole.length;
        const flipped = Buffer.from(whole);
        flipped[at]! ^= 1 << bit;
        expect(await faultOf(read(flipped, header))).toMatch(/^ARCHIVE_(UNKNOWN_FORMAT|TRUNCATED|ALTERED|SWAPPED)$/);
        expect(await faultOf(read(whole.subarray(0, at), header))).toBe('ARCHIVE_TRUNCATED');
        expect(await faultOf(read(Buffer.concat([whole, randomBytes(1)]), header))).toBe('ARCHIVE_ALTERED');
      }),
      { numRuns: 150 },
    );
  });

  test('whose parts were moved, repeated or left out is refused', async () => {
    const header = headerOf();
    const tables = [[randomBytes(700_000), randomBytes(700_000)], [randomBytes(10)]];
    const whole = await archive(header, tables);
    const frames: Buffer[] = [];
    let at = 12 + whole.readUInt32BE(8);
    const beginning = whole.subarray(0, at);
    while (at < whole.length) {
      const next = at + 5 + whole.readUInt32BE(at);
      frames.push(whole.subarray(at, next));
      at = next;
    }
    expect(frames.length).toBeGreaterThan(6);
    const made = (order: Buffer[]): Buffer => Buffer.concat([beginning, ...order]);
    expect((await read(made(frames), header)).rows[1]).toEqual(Buffer.concat(tables[1]!));
    for (const [index] of frames.entries()) {
      const without = frames.filter((_, other) => other !== index);
      expect(await faultOf(read(made(without), header))).toMatch(/ALTERED|TRUNCATED/);
      const repeated = frames.flatMap((frame, other) => (other === index ? [frame, frame] : [frame]));
      expect(await faultOf(read(made(repeated), header))).toBe('ARCHIVE_ALTERED');
      if (index === 0) continue;
      const swapped = [...frames];
      [swapped[index - 1], swapped[index]] = [swapped[index]!, swapped[index - 1]!];
      expect(await faultOf(read(made(swapped), header))).toBe('ARCHIVE_ALTERED');
    }
  });

  test('of another backup, another organization, or under another key is refused', async () => {
    const header = headerOf();
    const whole = await archive(header, [[Buffer.from('x\n')]]);
    expect(await faultOf(read(whole, { ...header, archive_id: uuidv7() }))).toBe('ARCHIVE_SWAPPED');
    expect(await faultOf(read(whole, { ...header, org_id: uuidv7() }))).toBe('ARCHIVE_SWAPPED');
    expect(await faultOf(read(whole, header, { secret: randomBytes(32) }))).toBe('ARCHIVE_ALTERED');
    // Renamed in clear, it does not open.
    const other = uuidv7();
    const renamed = Buffer.from(whole.toString('latin1').replace(header.archive_id, other), 'latin1');
    expect(await faultOf(read(renamed, { ...header, archive_id: other }))).toBe('ARCHIVE_ALTERED');
  });

  test('that fails while it is written fails by the same error', async () => {
    const header = headerOf();
    const rows = Object.assign(
      Readable.from(
        (function* () {
          yield Buffer.from('x\n');
          throw new Error('the server went away');
        })(),
      ),
      { rowCount: 0 },
    );
    const plan = { snapshot_at: '', generation: 1, postgres: '', schemas: [], tables: [tableOf('t0')] };
    const writing = writeArchive({
      header,
      secret: SECRET,
      source: { plan, rows: () => rows, sequences: async () => [] },
    });
    await expect(Readable.from(writing).toArray()).rejects.toThrow('the server went away');
  });
});
