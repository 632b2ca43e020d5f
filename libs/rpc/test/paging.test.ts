import { describe, expect, test } from '@jest/globals';
import { nextPageToken, pageOf, reasonOf, invalid, notFound, violationsOf } from '../src/index.ts';

describe('paging', () => {
  const query = { org: 'o1', filter: 'name:x', order: ['created_at', 'desc'] };
  const first = { pageSize: 0, pageToken: '' };

  test('page_size has a default and a maximum, and must not be negative', () => {
    expect(pageOf(first, { query })).toEqual({ size: 50, cursor: undefined });
    expect(pageOf({ ...first, pageSize: 7 }, { query }).size).toBe(7);
    expect(pageOf({ ...first, pageSize: 1e6 }, { query }).size).toBe(1000);
    expect(pageOf({ ...first, pageSize: 1e6 }, { query, maxSize: 10 }).size).toBe(10);
    expect(() => pageOf({ ...first, pageSize: -1 }, { query })).toThrow('page_size');
  });

  test('a token brings its cursor back', () => {
    const pageToken = nextPageToken(query, ['2026-11-21T00:00:00Z', 'id-1', null, 3.5]);
    expect(pageOf({ ...first, pageToken }, { query }).cursor).toEqual(['2026-11-21T00:00:00Z', 'id-1', null, 3.5]);
    const reordered = { order: ['created_at', 'desc'], filter: 'name:x', org: 'o1' };
    expect(pageOf({ ...first, pageToken }, { query: reordered }).cursor).toBeDefined();
  });

  test.each([
    ['another organization', { ...query, org: 'o2' }],
    ['another filter', { ...query, filter: 'name:y' }],
    ['no query', undefined],
  ])('a token of another query is refused: %s', (_name, other) => {
    const pageToken = nextPageToken(query, 'c');
    expect(() => pageOf({ ...first, pageToken }, { query: other })).toThrow('page_token: belongs to another query');
  });

  test.each(['x', 'bnVsbA', 'W10', "'; DROP TABLE jobs; --", '🙂', nextPageToken(query, 'c').slice(0, -4)])(
    'what is no token is refused and named: %s',
    (pageToken) => {
      const read = (): unknown => pageOf({ ...first, pageToken }, { query });
      expect(read).toThrow('page_token');
      try {
        read();
      } catch (error) {
        expect(violationsOf(error)[0]?.field).toBe('page_token');
      }
    },
  );

  test('a forged cursor of another shape is refused', () => {
    const pageToken = nextPageToken(query, { or: '1=1' });
    const isCursor = (cursor: unknown): boolean => typeof cursor === 'string';
    expect(() => pageOf({ ...first, pageToken }, { query, isCursor })).toThrow('page_token');
  });
});

test('errors name what they are about', () => {
  expect(reasonOf(notFound('pipeline', 'p1'))).toBe('RESOURCE_NOT_FOUND');
  expect(notFound('pipeline', 'p1').rawMessage).toBe('pipeline p1 not found');
  expect(violationsOf(invalid('spec.tasks[0].name', 'is empty'))).toEqual([
    { field: 'spec.tasks[0].name', description: 'is empty' },
  ]);
  expect(reasonOf(new Error('x'))).toBeUndefined();
  expect(violationsOf(new Error('x'))).toEqual([]);
});
