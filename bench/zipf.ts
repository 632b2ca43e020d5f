/** Frequency of the item of rank r: 1 / r. */
const EXPONENT = 1;

/** Picks from a list as users do: the first ones most. */
export function zipfPicker<T>(items: readonly T[]): () => T {
  let sum = 0;
  const cumulative = items.map((_, n) => (sum += 1 / (n + 1) ** EXPONENT));
  return () => {
    const at = Math.random() * sum;
    let [low, high] = [0, cumulative.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cumulative[middle]! < at) low = middle + 1;
      else high = middle;
    }
    return items[low]!;
  };
}
