import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { decideBatch } from '../src/domain/execution.ts';
import { joined, joining, lowOf, quantile, scaleOf, type Bin } from '../src/domain/score-units.ts';

const bins: fc.Arbitrary<Bin[]> = fc
  .uniqueArray(fc.integer({ min: -600, max: 600 }), { minLength: 1, maxLength: 80 })
  .chain((places) =>
    fc
      .array(fc.integer({ min: 1, max: 50 }), { minLength: places.length, maxLength: places.length })
      .map((items) => places.toSorted((a, b) => a - b).map((bin, index) => ({ bin, items: items[index]! }))),
  );
const total = (all: Bin[]): number => all.reduce((sum, { items }) => sum + items, 0);

test('joined bins hold what theirs held, and never more bins than asked for cover all', () => {
  fc.assert(
    fc.property(bins, fc.integer({ min: 2, max: 100 }), (finest, most) => {
      const [first, last] = [finest[0]!.bin, finest.at(-1)!.bin];
      const width = joining(first, last, most);
      expect(Math.floor(last / width) - Math.floor(first / width) + 1).toBeLessThanOrEqual(most);
      const wide = joined(finest, width);
      expect(total(wide)).toBe(total(finest));
      for (const { bin, items } of wide) {
        const inside = finest.filter((one) => one.bin >= bin * width && one.bin < (bin + 1) * width);
        expect(items).toBe(total(inside));
      }
      // Joining twice is joining once.
      expect(joined(joined(finest, 2), 5)).toEqual(joined(finest, 10));
    }),
  );
});

test('a quantile is the middle of the bin that holds it', () => {
  fc.assert(
    fc.property(bins, fc.double({ min: 0, max: 1, noNaN: true }), (finest, probability) => {
      const all = finest.flatMap(({ bin, items }) => Array.from({ length: items }, () => bin));
      const exact = all[Math.max(1, Math.ceil(probability * all.length)) - 1]!;
      expect(quantile(finest, probability, 0.1)).toBeCloseTo(exact / 10 + 0.05, 9);
    }),
  );
});

test('edges of bins are written as people would', () => {
  expect([lowOf(-73, 0.1), lowOf(29, 0.01), lowOf(3, 0.1), lowOf(0, 0.1)]).toEqual([-7.3, 0.29, 0.3, 0]);
  expect(scaleOf('kcal/mol')).toEqual({ min: -50, max: 50, binWidth: 0.1 });
  expect(scaleOf('bananas').max).toBeGreaterThan(1e6);
});

test('batches are taken one after the other', () => {
  expect([1, 2, 3, 4, 5].map((batch) => decideBatch(2, batch))).toEqual(['repeat', 'repeat', 'take', 'gap', 'gap']);
});
