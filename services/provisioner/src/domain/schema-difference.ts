/** One thing a schema consists of, as the catalog describes it. */
export interface DescribedObject {
  kind: string;
  /** Unique within its kind. */
  name: string;
  definition: string;
}

/** One object that is not as it should be. */
export interface Difference {
  difference: 'missing' | 'unexpected' | 'different';
  kind: string;
  name: string;
  /** Empty for what should not be there. */
  expected: string;
  /** Empty for what is missing. */
  actual: string;
}

const keyOf = ({ kind, name }: DescribedObject): string => `${kind}\0${name}`;

/** Every object by which two lists differ, by kind and name. */
export function compareObjects(expected: readonly DescribedObject[], actual: readonly DescribedObject[]): Difference[] {
  const there = new Map(actual.map((one) => [keyOf(one), one]));
  const wanted = new Set(expected.map(keyOf));
  const found: Difference[] = [];
  for (const one of expected) {
    const { kind, name, definition } = one;
    const other = there.get(keyOf(one));
    if (other === undefined) found.push({ difference: 'missing', kind, name, expected: definition, actual: '' });
    else if (other.definition !== definition) {
      found.push({ difference: 'different', kind, name, expected: definition, actual: other.definition });
    }
  }
  for (const one of actual) {
    const { kind, name, definition } = one;
    if (!wanted.has(keyOf(one))) {
      found.push({ difference: 'unexpected', kind, name, expected: '', actual: definition });
    }
  }
  return found.toSorted((a, b) => compare(keyOf(a as never), keyOf(b as never)));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Migrations that are recorded and should not be there, or in another order than the schema's. */
export function compareMigrations(applied: readonly string[], known: readonly string[]): Difference[] {
  return applied.flatMap((name, index): Difference[] => {
    const expected = known[index] ?? '';
    if (expected === name) return [];
    if (!known.includes(name))
      return [{ difference: 'unexpected', kind: 'migration', name, expected: '', actual: name }];
    return [{ difference: 'different', kind: 'migration', name, expected, actual: name }];
  });
}

const NAMED = 3;

/** For an error's text: the first objects by name, and how many more there are. */
export function differencesText(differences: readonly Difference[]): string {
  const named = differences.slice(0, NAMED).map(({ difference, kind, name }) => `${kind} ${name} is ${difference}`);
  const more = differences.length > NAMED ? `, and ${differences.length - NAMED} more` : '';
  return `${named.join(', ')}${more}`;
}
