/** What a unit of score means: where scores may lie, and how finely a histogram tells them apart. */
export interface ScoreScale {
  min: number;
  max: number;
  /** A whole number of millionths. Never change it: bins are kept. */
  binWidth: number;
}

/** Corrected affinities beyond ±50 kcal/mol are no result of docking. */
const SCALES: Readonly<Record<string, ScoreScale>> = {
  'kcal/mol': { min: -50, max: 50, binWidth: 0.1 },
  tanimoto: { min: 0, max: 1, binWidth: 0.01 },
};

const ANY_SCALE: ScoreScale = { min: -1e9, max: 1e9, binWidth: 0.1 };

/** The scale of a unit; a unit nobody described gets a wide one. */
export function scaleOf(scoreUnits: string): ScoreScale {
  return SCALES[scoreUnits] ?? ANY_SCALE;
}

/** A bin's place to the right of zero. */
export interface Bin {
  bin: number;
  items: number;
}

/** Where a bin begins, free of what floating point adds to a product. */
export function lowOf(bin: number, binWidth: number): number {
  return (bin * Math.round(binWidth * 1e6)) / 1e6;
}

/**
 * How many finest bins to join into one, a round number, so that at most `most` cover all from the first to the last.
 * `most` is 2 or more: bins on both sides of zero never become one.
 */
export function joining(first: number, last: number, most: number): number {
  for (let decade = 1; ; decade *= 10) {
    for (const step of [1, 2, 5]) {
      const width = decade * step;
      if (Math.floor(last / width) - Math.floor(first / width) < most) return width;
    }
  }
}

/** Neighbouring bins as one: exact, since each begins at a multiple of the joined width. By rising bin. */
export function joined(bins: readonly Bin[], width: number): Bin[] {
  const sums = new Map<number, number>();
  for (const { bin, items } of bins) {
    const wide = Math.floor(bin / width);
    sums.set(wide, (sums.get(wide) ?? 0) + items);
  }
  return [...sums].map(([bin, items]) => ({ bin, items }));
}

/**
 * The score that a share of the items does not exceed, in the middle of its bin: half a bin from the exact one at most.
 * `bins` by rising bin, not empty.
 */
export function quantile(bins: readonly Bin[], probability: number, binWidth: number): number {
  const total = bins.reduce((sum, { items }) => sum + items, 0);
  const wanted = Math.max(1, Math.ceil(probability * total));
  let seen = 0;
  const found = bins.find(({ items }) => (seen += items) >= wanted) ?? bins.at(-1)!;
  return lowOf(2 * found.bin + 1, binWidth / 2);
}
