import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { EXIT } from '../src/failure.ts';
import { lineTest, sinceMs } from '../src/log-lines.ts';
import type { TraceRecord } from '../src/trace-tree.ts';

const home = mkdtempSync(join(tmpdir(), 'mad-logs-'));
afterAll(() => rmSync(home, { recursive: true }));
const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const OTHER = '4bf92f35ffffffffffffffffffffffff';
const at = (ms: number): string => new Date(Date.UTC(2026, 0, 1) + ms).toISOString();
const line = (ms: number, service: string, level: string, msg: string, more = {}) =>
  JSON.stringify({ level, time: at(ms), service, ...more, msg });
const span = (
  ms: number,
  service: string,
  name: string,
  id: string,
  parent: string | undefined,
  took: number,
  more = {},
) =>
  JSON.stringify({
    time: at(ms).replace('Z', '500Z'),
    service,
    trace_id: TRACE,
    span_id: id,
    parent_span_id: parent,
    name,
    kind: 'server',
    ms: took,
    ...more,
  });

mkdirSync(join(home, 'logs'));
writeFileSync(
  join(home, 'logs/system.log'),
  [
    line(0, 'gateway', 'info', 'listens'),
    line(20, 'catalog', 'info', 'rpc', { trace_id: TRACE, span_id: 'bbbbbbbbbbbbbbbb', method: 'Get', code: 'ok' }),
    'a last word that is no JSON',
    line(30, 'results', 'warn', 'slow', { trace_id: TRACE }),
    line(40, 'catalog', 'error', 'failed', { trace_id: OTHER, error: { message: 'no disk' } }),
  ].join('\n') + '\n',
);
// The older file holds the beginning.
writeFileSync(
  join(home, 'logs/spans.jsonl.1'),
  `${span(10, 'gateway', 'HTTP GET', 'aaaaaaaaaaaaaaaa', undefined, 35.25)}\n`,
);
writeFileSync(
  join(home, 'logs/spans.jsonl'),
  [
    span(25, 'catalog', 'catalog read', 'cccccccccccccccc', 'bbbbbbbbbbbbbbbb', 2, { error: 'no row' }),
    span(12, 'catalog', 'JobService/GetJob', 'bbbbbbbbbbbbbbbb', 'aaaaaaaaaaaaaaaa', 20, {
      attributes: { code: 'ok' },
    }),
  ].join('\n') + '\n',
);

function mad(...args: string[]): { code: number | null; stdout: string; stderr: string } {
  const main = join(import.meta.dirname, '../src/main.ts');
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, '--home', home, 'logs', ...args], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] },
  });
  return { code: status, stdout, stderr };
}

describe('mad logs --trace', () => {
  test('shows a tree across services, with durations and what was logged', () => {
    const { code, stdout } = mad('--trace', TRACE);
    expect(code).toBe(EXIT.ok);
    expect(stdout.split('\n').map((row) => row.trimEnd())).toEqual([
      `trace ${TRACE}: 3 spans, 2 lines, 35.3 ms, catalog, gateway, results`,
      '',
      'at ms  took ms  service  what',
      ' +0.0     35.3  gateway  HTTP GET (server)',
      ' +2.0     20.0  catalog    JobService/GetJob (server) code=ok',
      ' +9.5           catalog      · info rpc method=Get code=ok',
      '+15.0      2.0  catalog      catalog read (server) ✗ no row',
      '+19.5           results  · warn slow',
      '',
    ]);
  });

  test('as JSON has every span and line in the order of time', () => {
    const { code, stdout } = mad('--json', '--trace', TRACE.slice(0, 12));
    expect(code).toBe(EXIT.ok);
    const record = JSON.parse(stdout) as TraceRecord;
    expect(record.trace_id).toBe(TRACE);
    expect(record.spans.map(({ name }) => name)).toEqual(['HTTP GET', 'JobService/GetJob', 'catalog read']);
    expect(record.lines.map(({ msg }) => msg)).toEqual(['rpc', 'slow']);
  });

  test('an unknown trace is exit code 3, an ambiguous or malformed one 2', () => {
    expect(mad('--trace', 'f'.repeat(32)).code).toBe(EXIT.notFound);
    expect(mad('--trace', '4bf92f35').code).toBe(EXIT.usage);
    expect(mad('--trace', "x' OR").code).toBe(EXIT.usage);
  });
});

describe('mad logs', () => {
  test('filters by service, level and time', () => {
    expect(mad('--service', 'catalog').stdout.trim().split('\n')).toHaveLength(2);
    expect(mad('--level', 'warn').stdout.match(/"msg":"(\w+)"/g)).toEqual(['"msg":"slow"', '"msg":"failed"']);
    expect(mad('--since', at(35)).stdout).not.toContain('slow');
    expect(mad('--since', '1h').stdout).toBe('');
    expect(mad('--lines', '1').stdout.trim().split('\n')).toHaveLength(1);
    expect(mad('--level', 'loud')).toMatchObject({ code: EXIT.usage, stderr: expect.stringContaining('--level') });
    expect(mad('--since', 'yesterday').code).toBe(EXIT.usage);
  });

  test('as JSON is one document', () => {
    expect(JSON.parse(mad('--json', '--service', 'results').stdout)).toMatchObject([{ msg: 'slow', level: 'warn' }]);
  });

  test('a line that is no JSON is shown unless something is asked for', () => {
    expect(mad().stdout).toContain('a last word');
    expect(lineTest({ level: 'info' }, 0)('a last word')).toBe(false);
  });

  test('times ago', () => {
    expect([sinceMs('90s', 100_000), sinceMs('2h', 7_200_000), sinceMs('1d', 86_400_001)]).toEqual([10_000, 0, 1]);
  });
});
