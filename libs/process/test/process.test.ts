import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import {
  backoff,
  ConfigError,
  createLogger,
  createMetrics,
  mergedMetricsText,
  readEnv,
  Rounds,
  sleep,
  uuidTime,
  uuidv7,
} from '../src/index.ts';

describe('readEnv', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'mad-env-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const problemsOf = (run: () => unknown): readonly string[] => {
    try {
      run();
    } catch (error) {
      if (error instanceof ConfigError) return error.problems;
    }
    throw new Error('expected a ConfigError');
  };

  test('reads every kind of setting', () => {
    const env = {
      HOST: '10.0.0.1',
      PORT: '7001',
      EAGER: 'yes',
      URL: 'postgres://a:b@h/d',
      MODE: 'fast',
      KEYS: '{"a":1}',
    };
    const config = readEnv(env, (r) => ({
      host: r.string('HOST'),
      port: r.integer('PORT', { min: 1, max: 65_535 }),
      pool: r.integer('POOL', { default: 5 }),
      eager: r.boolean('EAGER'),
      quiet: r.boolean('QUIET', false),
      url: r.url('URL'),
      readUrl: r.url('READ_URL', { optional: true }),
      mode: r.oneOf('MODE', ['slow', 'fast'], 'slow'),
      level: r.oneOf('LEVEL', ['info', 'debug'], 'info'),
      keys: r.json('KEYS', (value) => value as { a: number }),
    }));
    expect(config).toEqual({
      host: '10.0.0.1',
      port: 7001,
      pool: 5,
      eager: true,
      quiet: false,
      url: 'postgres://a:b@h/d',
      readUrl: undefined,
      mode: 'fast',
      level: 'info',
      keys: { a: 1 },
    });
  });

  test('reports all problems at once, by name, without values', () => {
    const env = {
      PORT: '70000',
      POOL: 'five',
      URL: 'hunter2',
      MODE: 'warp',
      SECRET: 'short',
      NAME: 'A B',
      KEYS: '{hunter2',
    };
    const problems = problemsOf(() =>
      readEnv(env, (r) => [
        r.string('HOST'),
        r.integer('PORT', { max: 65_535 }),
        r.integer('POOL'),
        r.url('URL'),
        r.oneOf('MODE', ['slow', 'fast']),
        r.secret('SECRET', { minLength: 32 }),
        r.string('NAME', { pattern: /^[a-z]+$/, expected: 'small letters' }),
        r.json('KEYS', (value) => value),
        r.problem('A', 'needs B'),
      ]),
    );
    expect(problems).toEqual([
      'HOST: is required',
      'PORT: must be at most 65535',
      'POOL: must be a whole number',
      'URL: must be a URL',
      'MODE: must be one of slow, fast',
      'SECRET: must have at least 32 characters',
      'NAME: must be small letters',
      'KEYS: must be JSON',
      'A: needs B',
    ]);
    expect(problems.join()).not.toContain('hunter2');
  });

  test('reads a setting from the file that NAME_FILE names', () => {
    const file = join(folder, 'password');
    writeFileSync(file, 'p4ss word\n');
    expect(readEnv({ PASSWORD_FILE: file }, (r) => r.secret('PASSWORD'))).toBe('p4ss word');
    expect(problemsOf(() => readEnv({ PASSWORD_FILE: file, PASSWORD: 'x' }, (r) => r.secret('PASSWORD')))).toEqual([
      'PASSWORD: is given twice: as PASSWORD and as PASSWORD_FILE',
    ]);
    expect(problemsOf(() => readEnv({ PASSWORD_FILE: join(folder, 'none') }, (r) => r.secret('PASSWORD')))).toEqual([
      'PASSWORD: cannot read the file of PASSWORD_FILE (ENOENT)',
    ]);
  });
});

describe('createLogger', () => {
  const logged = (write: (log: ReturnType<typeof createLogger>) => void): Record<string, unknown> => {
    const lines: string[] = [];
    write(createLogger('catalog', { destination: { write: (line) => void lines.push(line) } }));
    expect(lines).toHaveLength(1);
    return JSON.parse(lines[0]!) as Record<string, unknown>;
  };

  test('writes one JSON line with time, level, service and fields', () => {
    const line = logged((log) => log.info({ org_id: 'o1' }, 'hello'));
    expect(line).toMatchObject({ level: 'info', service: 'catalog', org_id: 'o1', msg: 'hello' });
    expect(new Date(line['time'] as string).getTime()).toBeGreaterThan(Date.now() - 60_000);
  });

  test('reduces an error to code, message, stack and cause', () => {
    const error = Object.assign(new Error('outer', { cause: new Error('inner') }), {
      code: '23505',
      detail: { row: 1 },
    });
    const line = logged((log) => log.error({ error }, 'failed'));
    expect(line['error']).toEqual({
      code: '23505',
      message: 'outer',
      stack: expect.stringContaining('outer'),
      cause: { message: 'inner', stack: expect.any(String) },
    });
  });

  test('tells an error that arrives as a copy, and whatever else was thrown', () => {
    const copy = { message: 'the queue failed', stack: 'Error: the queue failed', queue: 'q' };
    const line = logged((log) => log.error({ error: copy }, 'failed'));
    expect(line['error']).toEqual({ message: 'the queue failed', stack: 'Error: the queue failed' });
    expect(logged((log) => log.error({ error: 'plain' }, 'failed'))['error']).toEqual({ message: 'plain' });
  });

  test('never writes a credential', () => {
    const fields = {
      password: 'hunter2',
      refresh_token: 'hunter2',
      request: { Authorization: 'Bearer hunter2', id: 7 },
    };
    const line = logged((log) => log.info(fields, 'x'));
    expect(JSON.stringify(line)).not.toContain('hunter2');
    expect(line['request']).toEqual({ Authorization: '[redacted]', id: 7 });
    expect(fields.password).toBe('hunter2');
  });
});

describe('ids', () => {
  test('a UUIDv7 carries its time and ids ascend', () => {
    const before = Date.now();
    const ids = Array.from({ length: 1000 }, uuidv7);
    expect(uuidTime(ids[0]!).getTime()).toBeGreaterThanOrEqual(before);
    expect(uuidTime(ids[0]!).getTime()).toBeLessThanOrEqual(Date.now());
    expect(ids.toSorted()).toEqual(ids);
    expect(new Set(ids).size).toBe(1000);
  });

  test('anything else has no time', () => {
    expect(() => uuidTime('f47ac10b-58cc-4372-a567-0e02b2c3d479')).toThrow(RangeError);
    expect(() => uuidTime("x' OR 1=1")).toThrow(RangeError);
  });
});

test('backoff grows to its bound and is jittered from zero', () => {
  const waits = (attempt: number): number[] =>
    Array.from({ length: 2000 }, () => backoff(attempt, { baseMs: 100, maxMs: 1000 }));
  expect(Math.max(...waits(0))).toBeLessThanOrEqual(100);
  expect(Math.max(...waits(2))).toBeGreaterThan(300);
  expect(Math.max(...waits(50))).toBeLessThanOrEqual(1000);
  expect(Math.min(...waits(50))).toBeLessThan(100);
});

test('sleep ends with its signal and leaves no listener', async () => {
  const controller = new AbortController();
  const sleeping = sleep(60_000, controller.signal);
  controller.abort(new Error('enough'));
  await expect(sleeping).rejects.toThrow('enough');
  await expect(sleep(1, controller.signal)).rejects.toThrow('enough');
  await sleep(1, new AbortController().signal);
});

test('metrics of two services make one exposition', async () => {
  const [a, b] = [createMetrics('a'), createMetrics('b')];
  for (const metrics of [a, b, b]) {
    metrics.counter({ name: 'calls_total', help: 'Calls.', labelNames: ['code'] }).inc({ code: 'ok' });
  }
  const text = await mergedMetricsText([a, b]);
  expect(text).toContain('calls_total{code="ok",service="a"} 1');
  expect(text).toContain('calls_total{code="ok",service="b"} 2');
});

test('rounds go on after one that failed, and end when they are closed', async () => {
  const logged: string[] = [];
  const logger = createLogger('test', { destination: { write: (line) => void logged.push(line) } });
  let count = 0;
  const three = Promise.withResolvers<void>();
  const rounds = new Rounds({ everyMs: 1, logger, failure: 'a round failed' }, async () => {
    count += 1;
    if (count === 1) throw new Error('once');
    if (count === 3) three.resolve();
  });
  await three.promise;
  await rounds.close();
  const ended = count;
  await sleep(20);
  expect(count).toBe(ended);
  expect(logged).toHaveLength(1);
  expect(logged[0]).toContain('a round failed');
});
