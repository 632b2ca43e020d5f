import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { FilterError, leavesOutBetter, parseFilter } from '../src/domain/hit-filter.ts';

test('conditions are read one by one, joined by AND', () => {
  expect(
    parseFilter('score <= -7.5 AND molecular_weight<500 AND logp >= -1 AND source = fresh AND rank <= 100'),
  ).toEqual({
    score: [{ comparison: '<=', value: -7.5 }],
    properties: [
      { property: 'molecular_weight', comparison: '<', value: 500 },
      { property: 'logp', comparison: '>=', value: -1 },
    ],
    source: 'fresh',
    maxRank: 100,
  });
  expect(parseFilter('  ')).toEqual({ score: [], properties: [], source: undefined, maxRank: undefined });
  expect(parseFilter('rank < 10 AND rank <= 50').maxRank).toBe(9);
});

test.each([
  ['mass < 3', 'mass: is none of score, rank'],
  ['score', 'is no condition'],
  ['score <= ', 'is no condition'],
  ['score <= x', "'x' is no number"],
  ['score <= Infinity', 'is no number'],
  ['score <= 0x10', 'is no number'],
  ['score <= 1e999', 'is no number'],
  ['score != 3', 'is no condition'],
  ['score <= 1 OR score > 3', 'is no condition'],
  ['score <= 1 AND', 'is no condition'],
  ['score <= 1; DROP TABLE jobs', 'is no condition'],
  ['source = old', 'source: write'],
  ['source = fresh AND source = cached', 'cannot be both'],
  ['rank > 3', 'rank: write'],
  ['rank <= 0', 'rank: write'],
  [Array.from({ length: 21 }, () => 'score < 1').join(' AND '), 'more than 20'],
])('%j is refused: %s', (text, words) => {
  expect(() => parseFilter(text)).toThrow(words);
});

test('any text is read or refused, never anything else', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a-z_<=> .0-9AND-]{0,40}$/)), (text) => {
      try {
        parseFilter(text);
      } catch (error) {
        expect(error).toBeInstanceOf(FilterError);
      }
    }),
    { numRuns: 2000 },
  );
});

test('ranks are known as long as no better hit is left out', () => {
  expect(leavesOutBetter(parseFilter('score <= -7'), true)).toBe(false);
  expect(leavesOutBetter(parseFilter('score >= -7'), true)).toBe(true);
  expect(leavesOutBetter(parseFilter('score >= 0.5'), false)).toBe(false);
  expect(leavesOutBetter(parseFilter('score < 0.5'), false)).toBe(true);
  expect(leavesOutBetter(parseFilter('score = 0.5'), false)).toBe(true);
  expect(leavesOutBetter(parseFilter('logp >= 3'), true)).toBe(false);
});
