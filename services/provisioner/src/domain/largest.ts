/** A few of many, the largest first, and what the others come to together. */
export interface Largest {
  top: [name: string, value: number][];
  other: number;
}

/** The `count` largest of these; equal ones by name. What is zero is never among them. */
export function largest(values: ReadonlyMap<string, number>, count: number): Largest {
  const found = [...values].filter(([, value]) => value > 0);
  const sorted = found.toSorted(([a, left], [b, right]) => right - left || (a < b ? -1 : 1));
  const other = sorted.slice(count).reduce((sum, [, value]) => sum + value, 0);
  return { top: sorted.slice(0, count), other };
}
