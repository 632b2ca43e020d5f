import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { Code, ConnectError } from '@connectrpc/connect';
import { create } from '@bufbuild/protobuf';
import { GetJobCoverageResponseSchema, GetScoreHistogramResponseSchema } from '@mad/proto/results';
import { invalid, rpcError } from '@mad/rpc';
import { partsOf } from '../src/commands/health.ts';
import { parametersOf } from '../src/commands/job.ts';
import { readLibrary } from '../src/commands/molecule.ts';
import { readPipelineFile } from '../src/commands/pipeline.ts';
import { CommandFailure, EXIT, reportOf } from '../src/failure.ts';
import { table } from '../src/output.ts';
import { sessionStore, type StoredSession } from '../src/session-store.ts';
import { readSettings } from '../src/settings.ts';
import { bar, failureTable, histogramText } from '../src/statistics-text.ts';

const folder = mkdtempSync(join(tmpdir(), 'mad-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = (name: string, content: string): string => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};

describe('failures', () => {
  test.each([
    [Code.InvalidArgument, EXIT.usage],
    [Code.NotFound, EXIT.notFound],
    [Code.Unauthenticated, EXIT.denied],
    [Code.PermissionDenied, EXIT.denied],
    [Code.FailedPrecondition, EXIT.refused],
    [Code.ResourceExhausted, EXIT.refused],
    [Code.Unavailable, EXIT.unavailable],
    [Code.Internal, EXIT.failed],
  ])('code %i has exit code %i', (code, exitCode) => {
    expect(reportOf(new ConnectError('x', code)).exitCode).toBe(exitCode);
  });

  test('fields and reasons are told', () => {
    expect(reportOf(invalid('name', 'must not be empty'))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      fields: [{ field: 'name', description: 'must not be empty' }],
    });
    expect(reportOf(rpcError(Code.ResourceExhausted, 'QUOTA_EXCEEDED', 'too much'))).toMatchObject({
      reason: 'QUOTA_EXCEEDED',
    });
  });

  test('an error of any kind fails', () => {
    expect(reportOf(new TypeError('x')).exitCode).toBe(EXIT.failed);
    expect(reportOf(new CommandFailure('x', EXIT.refused)).exitCode).toBe(EXIT.refused);
  });
});

describe('what people write', () => {
  test('parameters are JSON where they read as JSON, else text', () => {
    expect(parametersOf(['reference=CC=O', 'exhaustiveness=8', 'flags={"a":[1]}', 'empty='])).toEqual({
      reference: 'CC=O',
      exhaustiveness: 8,
      flags: { a: [1] },
      empty: '',
    });
    expect(() => parametersOf(['nonsense'])).toThrow('name=value');
  });

  test('a library: names with blanks, comments and empty lines', async () => {
    const path = file('library.smi', '# drugs\nCCO ethanol, absolute\n\nC1CC1\tcyclo propane\r\nnot\n');
    expect(await readLibrary(path)).toEqual([
      { smiles: 'CCO', name: 'ethanol, absolute' },
      { smiles: 'C1CC1', name: 'cyclo propane' },
      { smiles: 'not', name: '' },
    ]);
    await expect(readLibrary(join(folder, 'missing'))).rejects.toThrow('cannot read');
    await expect(readLibrary(file('empty.smi', '\n'))).rejects.toThrow('no rows');
  });

  test('a pipeline file that is none says why', async () => {
    await expect(readPipelineFile(file('a.json', '{'))).rejects.toThrow('a.json');
    await expect(readPipelineFile(file('b.json', '{"spec": {}}'))).rejects.toThrow('"name"');
    await expect(readPipelineFile(file('c.json', '{"name": "x"}'))).rejects.toThrow('"spec"');
    await expect(readPipelineFile(file('d.json', '{"name": "x", "spec": {"nonsense": 1}}'))).rejects.toThrow(
      'nonsense',
    );
  });

  test('flags win over the environment', () => {
    const env = { MAD_URL: 'http://env.example/', MAD_ORG: 'env', MAD_HOME: folder };
    expect(readSettings(env, {})).toMatchObject({ url: 'http://env.example', organization: 'env', remote: true });
    expect(readSettings(env, { url: 'http://flag.example', org: 'flag' })).toMatchObject({
      url: 'http://flag.example',
      organization: 'flag',
    });
    expect(readSettings({ MAD_HOME: folder }, {})).toMatchObject({ url: 'http://127.0.0.1:8080', remote: false });
  });
});

describe('tables', () => {
  test('numbers to the right, text to the left', () => {
    expect(
      table(
        ['name', 'n'],
        [
          ['a', 1],
          ['long', 10],
        ],
      ),
    ).toBe('name   n\n────  ──\na      1\nlong  10');
    expect(table(['name'], [])).toBe('none');
  });

  test('every row is there, whatever it says', () => {
    fc.assert(
      fc.property(fc.array(fc.stringMatching(/^[ -~]*$/), { minLength: 1 }), (cells) => {
        expect(
          table(
            ['h'],
            cells.map((cell) => [cell]),
          ).split('\n'),
        ).toHaveLength(cells.length + 2);
      }),
    );
  });

  test('health as the seeds draw it', () => {
    const parts = partsOf(
      {
        status: 'ready',
        degraded: false,
        checks: {
          databases: { metadata: true, local: true },
          metadata_db: true,
          org_databases: { READY: 2, FAILED: 1 },
        },
        latency_ms: { metadata: 1.2, local: 2.7 },
      },
      5,
    );
    expect(parts.map((one) => [one.part, one.state, one.latency_ms])).toEqual([
      ['Gateway', 'healthy', 5],
      ['PostgreSQL local', 'healthy', 3],
      ['Redis', 'not used', null],
      ['Metadata DB', 'ready', 1],
      ['Results DBs', 'degraded: 2 READY, 1 FAILED', null],
    ]);
    const withKeys = (keyService: boolean, latency: Record<string, number>): unknown =>
      partsOf(
        {
          status: 'ready',
          degraded: !keyService,
          checks: { databases: {}, metadata_db: true, key_service: keyService, org_databases: {} },
          latency_ms: latency,
        },
        5,
      ).find(({ part }) => part === 'Key service');
    expect(withKeys(true, { key_service: 7.6 })).toMatchObject({ state: 'healthy', latency_ms: 8 });
    expect(withKeys(false, {})).toMatchObject({ state: 'unavailable', latency_ms: null });
    const time = '2026-11-26T03:00:00.000Z';
    const backedUp = (found: { time: string | null; overdue: boolean; error: string }): unknown =>
      partsOf(
        {
          status: 'ready',
          degraded: false,
          checks: { databases: {}, metadata_db: true, metadata_backup: found, org_databases: {} },
          latency_ms: {},
        },
        5,
      ).find(({ part }) => part === 'Metadata backup')!.state;
    expect(backedUp({ time, overdue: false, error: '' })).toBe(`of ${time}`);
    expect(backedUp({ time, overdue: true, error: '' })).toBe(`overdue: the last is of ${time}`);
    expect(backedUp({ time: null, overdue: false, error: '' })).toBe('none yet');
    expect(backedUp({ time: null, overdue: false, error: 'it does not answer' })).toBe('it does not answer');
  });
});

describe('statistics', () => {
  const histogram = (changes: object) =>
    create(GetScoreHistogramResponseSchema, {
      taskId: 'dock',
      scoreUnits: 'kcal/mol',
      lowerIsBetter: true,
      items: 7n,
      binWidth: 0.5,
      resolution: 0.1,
      bins: [
        { low: -7.5, items: 1n },
        { low: -6.5, items: 6n },
      ],
      quantiles: [{ probability: 0.5, score: -6.25 }],
      ...changes,
    });

  test('a histogram is drawn best first, gaps included, bars in proportion', () => {
    expect(histogramText(histogram({})).split('\n')).toEqual([
      'dock: 7 scores, kcal/mol, lower is better',
      `-7.5 … -7.0  1  ${'█'.repeat(8)}`,
      '-7.0 … -6.5  0',
      `-6.5 … -6.0  6  ${'█'.repeat(48)}`,
      'quantiles (±0.05): 50 % ≤ -6.25',
    ]);
    expect(histogramText(histogram({ lowerIsBetter: false })).split('\n')[1]).toContain('-6.5 … -6.0  6');
    expect(histogramText(histogram({ items: 0n, bins: [], quantiles: [] }))).toContain('no scores yet');
  });

  test('a bar is never longer than its width, and never nothing for something', () => {
    fc.assert(
      fc.property(fc.nat(1e6), fc.integer({ min: 1, max: 1e6 }), (items, more) => {
        const drawn = bar(items, items + more);
        expect(drawn.length).toBeLessThanOrEqual(48);
        expect(drawn === '').toBe(items === 0);
      }),
    );
  });

  test('failures are a line for each kind, with the first line of an example', () => {
    const failures = [{ errorClass: 'TIMEOUT', items: 4n, exampleItemNo: 5, exampleMessage: 'took too long\nreally' }];
    const text = failureTable(create(GetJobCoverageResponseSchema, { tasks: [{ taskId: 'dock', failures }] }));
    expect(text).toMatch(/dock {2}TIMEOUT {6}4 {10}5 {2}took too long$/);
    expect(failureTable(create(GetJobCoverageResponseSchema, {}))).toBe('none');
  });
});

describe('sessions', () => {
  const session = (organization: string): StoredSession => ({
    url: 'http://a.example',
    organization,
    orgId: organization && `id of ${organization}`,
    email: 'a@a.example',
    accessToken: 'x',
    accessExpiresAt: 0,
    refreshToken: 'y',
  });

  test('the newest organization wins, the platform is asked for by name, the file is private', async () => {
    const store = sessionStore(folder);
    for (const one of ['acme', '', 'globex']) await store.save(session(one));
    expect((await store.find('http://a.example', undefined))?.organization).toBe('globex');
    expect((await store.find('http://a.example', ''))?.organization).toBe('');
    expect((await store.find('http://a.example', 'acme'))?.orgId).toBe('id of acme');
    expect(await store.find('http://b.example', undefined)).toBeUndefined();
    await store.remove(session('globex'));
    expect((await store.find('http://a.example', undefined))?.organization).toBe('acme');
    expect(statSync(join(folder, 'sessions.json')).mode & 0o777).toBe(0o600);
  });
});
