/** How much the values rise from the first to the last, in percent of their mean, by the straight line nearest to them. */
export function growthPercent(values: readonly number[]): number {
  const count = values.length;
  if (count < 2) throw new RangeError('growth needs two values');
  const middle = (count - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / count;
  let [over, under] = [0, 0];
  for (const [index, value] of values.entries()) {
    over += (index - middle) * (value - mean);
    under += (index - middle) ** 2;
  }
  return mean === 0 ? 0 : (100 * (over / under) * (count - 1)) / mean;
}

/** The value that so large a part of them, between 0 and 1, does not exceed. */
export function quantile(values: readonly number[], part: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) * part)]!;
}
