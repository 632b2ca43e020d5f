import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Code, ConnectError } from '@connectrpc/connect';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { MANIFEST, manifestFrom, readManifest, verifyFolder, verifyParts } from '../src/export-manifest.ts';
import { rowCounter } from '../src/export-rows.ts';
import { EXIT } from '../src/failure.ts';

const NAMES = ['plain', 'with, comma', 'a "quote"', 'two\nlines', 'β-😀'];
const quoted = (text: string): string => `"${text.replaceAll('"', '""')}"`;

/** The same five hits in each format. */
const CONTENTS: Record<string, Buffer> = {
  csv: Buffer.from(`rank,name\n${NAMES.map((name, index) => `${index + 1},${quoted(name)}\n`).join('')}`),
  jsonl: Buffer.from(NAMES.map((name) => `${JSON.stringify({ name })}\n`).join('')),
  sdf: Buffer.from(
    NAMES.map(() => '\n  MAD\n\n  0  0  0  0  0  0            999 V2000\nM  END\n>  <a>\nx $$$$\n\n$$$$\n').join(''),
  ),
  parquet: Buffer.from(parquetWriteBuffer({ columnData: [{ name: 'name', data: NAMES, type: 'STRING' }] })),
};

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'mad-export-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A folder as a download leaves it: three parts of five hits. */
function download(format: string, changes: object = {}): { path: string; file: (part: number) => string } {
  const path = mkdtempSync(join(folder, 'x-'));
  const content = CONTENTS[format]!;
  const parts = [1, 2, 3].map((part) => {
    const file = `part-0000${part}.${format}`;
    writeFileSync(join(path, file), content);
    return { file, rows: 5, size_bytes: content.length, sha256: createHash('sha256').update(content).digest('hex') };
  });
  writeFileSync(join(path, MANIFEST), JSON.stringify({ manifest_version: 1, format, rows: 15, parts, ...changes }));
  return { path, file: (part) => join(path, parts[part - 1]!.file) };
}

describe.each(Object.keys(CONTENTS))('an export as %s', (format) => {
  test('that came whole is whole', async () => {
    const done: number[] = [];
    await expect(verifyFolder(download(format).path, (count) => done.push(count))).resolves.toEqual([]);
    expect(done).toEqual([1, 2, 3]);
  });

  test('with a truncated part: the part is named, with its size', async () => {
    const { path, file } = download(format);
    truncateSync(file(2), CONTENTS[format]!.length - 3);
    const size = CONTENTS[format]!.length;
    await expect(verifyFolder(path)).resolves.toEqual([
      { file: `part-00002.${format}`, problem: `has ${size - 3} bytes instead of ${size}` },
    ]);
  });

  test('with one bit flipped anywhere: the part is named', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(CONTENTS[format]!.length * 8 - 1), fc.integer({ min: 1, max: 3 }), async (bit, part) => {
        const { path, file } = download(format);
        const content = readFileSync(file(part));
        content[bit >> 3]! ^= 1 << (bit & 7);
        writeFileSync(file(part), content);
        const damages = await verifyFolder(path);
        expect(damages).toEqual([
          { file: `part-0000${part}.${format}`, problem: 'has another content: its sha256 differs' },
        ]);
      }),
      { numRuns: 30 },
    );
  });

  test('with a part missing and another one swapped for it: both are told', async () => {
    const { path, file } = download(format);
    rmSync(file(1));
    writeFileSync(file(3), Buffer.concat([CONTENTS[format]!, CONTENTS[format]!]));
    await expect(verifyFolder(path)).resolves.toMatchObject([
      { file: `part-00001.${format}`, problem: 'is missing' },
      { file: `part-00003.${format}`, problem: expect.stringContaining('bytes') },
    ]);
  });

  test('rows are counted, whatever is in them and however they come', () => {
    const content = CONTENTS[format]!;
    fc.assert(
      fc.property(fc.array(fc.nat(content.length), { maxLength: 5 }), (cuts) => {
        const counter = rowCounter(format)!;
        const places = [0, ...cuts.toSorted((a, b) => a - b), content.length];
        for (const [index, place] of places.slice(1).entries()) counter.add(content.subarray(places[index], place));
        expect(counter.rows()).toBe(5);
      }),
    );
  });
});

test('a part that the service has lost is told, and its being away is not taken for that', async () => {
  const manifest = await readManifest(download('csv').path);
  const answer = (code: Code) =>
    verifyParts(manifest, async function* () {
      yield CONTENTS['csv']!.subarray(0, 4);
      throw new ConnectError('no', code);
    });
  await expect(answer(Code.DataLoss)).resolves.toHaveLength(3);
  await expect(answer(Code.Unavailable)).rejects.toMatchObject({ code: Code.Unavailable });
});

test('rows that the manifest counts otherwise are told', async () => {
  const { path } = download('csv', { rows: 16 });
  await expect(verifyFolder(path)).resolves.toEqual([{ file: MANIFEST, problem: 'says 16 rows, its parts say 15' }]);
});

test('files that end in the middle of a row say so, also where the checksum is theirs', () => {
  for (const [format, text] of [
    ['csv', 'rank\n1'],
    ['csv', 'rank\n"1\n'],
    ['csv', ''],
    ['jsonl', '{}\n{'],
    ['sdf', 'title\nM  END\n'],
  ] as const) {
    const counter = rowCounter(format)!;
    counter.add(Buffer.from(text));
    expect(() => counter.rows()).toThrow('in the middle of a row');
  }
});

test.each([
  [{ manifest_version: 2 }, 'no manifest'],
  [{ manifest_version: 1, format: 'xlsx' }, 'xlsx'],
  [{ manifest_version: 1, format: 'csv', rows: 1 }, 'parts'],
  [
    { manifest_version: 1, format: 'csv', rows: 1, parts: [{ file: '../../etc/passwd', rows: 1, size_bytes: 1 }] },
    'a part',
  ],
  [null, 'no manifest'],
])('what is no manifest is refused: %j', (value, said) => {
  expect(() => manifestFrom(value, 'manifest.json')).toThrow(said);
});

test('a folder without a manifest is not found', async () => {
  await expect(verifyFolder(folder)).rejects.toMatchObject({ exitCode: EXIT.notFound });
});
