import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  DEFAULT_RULES,
  absenceHalts,
  failuresHalt,
  pauseBefore,
  waveOf,
  type RolloutRules,
} from '../src/domain/rollout.ts';

const rules = (changes: Partial<RolloutRules> = {}): RolloutRules => ({ ...DEFAULT_RULES, ...changes });

describe('waves', () => {
  test('go from staging over the canaries to the rest, none larger than it may be, nobody out of order', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 20 }),
        fc.nat(200),
        (canaries, size, n) => {
          const given = rules({ canaries, wave_size: size });
          const waves = Array.from({ length: n }, (_, index) => waveOf(false, index, given));
          expect(waves).toEqual(waves.toSorted((a, b) => a - b));
          for (const wave of new Set(waves)) {
            const members = waves.filter((one) => one === wave).length;
            expect(members).toBeLessThanOrEqual(wave === 1 ? canaries : size);
          }
          expect(waveOf(true, 0, given)).toBe(0);
        },
      ),
    );
  });
});

describe('failures', () => {
  test.each([
    [0, { failed: 1, total: 10 }, {}, '1 of 10 failed among the tenants labelled staging'],
    [1, { failed: 1, total: 5 }, {}, '1 of 5 failed among the canaries'],
    [2, { failed: 5, total: 100 }, {}, undefined],
    [2, { failed: 6, total: 100 }, {}, '6 of 100 failed in wave 2, more than 5'],
    [3, { failed: 2, total: 10 }, { max_failure_percent: 20 }, undefined],
    [3, { failed: 3, total: 10 }, { max_failure_percent: 20 }, '3 of 10 failed in wave 3, more than 20 %'],
    [1, { failed: 0, total: 5 }, {}, undefined],
  ])('in wave %i of %o under %o halt it: %s', (wave, counts, changes, expected) => {
    expect(failuresHalt(wave, counts, rules(changes))).toBe(expected);
  });
});

test.each([
  [1, { succeeded: 0, queued: 2 }, 'none of 2 in wave 1 could be reached'],
  [1, { succeeded: 1, queued: 4 }, undefined],
  [3, { succeeded: 0, queued: 5 }, undefined],
  [3, { succeeded: 0, queued: 6 }, 'none of 6 in wave 3 could be reached'],
])('in wave %i, that %o: halts with %s', (wave, counts, expected) => {
  expect(absenceHalts(wave, counts, rules())).toBe(expected);
});

test('tries come at longer and longer intervals, a minute at most', () => {
  expect([1, 2, 3, 10].map(pauseBefore)).toEqual([1_000, 2_000, 4_000, 60_000]);
});
