import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parseIndex } from '../src/domain/index-definition.ts';
import { planRepair, stepText } from '../src/domain/repair.ts';
import {
  compareMigrations,
  compareObjects,
  differencesText,
  type DescribedObject,
} from '../src/domain/schema-difference.ts';

const objects = fc.uniqueArray(
  fc.record({
    kind: fc.constantFrom('table', 'column', 'index', 'rights'),
    name: fc.string({ maxLength: 8 }),
    definition: fc.string({ maxLength: 8 }),
  }),
  { selector: ({ kind, name }) => `${kind}\0${name}`, maxLength: 30 },
);

describe('the difference of two lists of objects', () => {
  test('of equal ones is none, in whatever order they come', () => {
    fc.assert(fc.property(objects, (list) => compareObjects(list, list.toReversed()).length === 0));
  });

  test('applied to what is there makes what should be there', () => {
    fc.assert(
      fc.property(objects, objects, (expected, actual) => {
        const made = new Map<string, DescribedObject>(actual.map((one) => [`${one.kind}\0${one.name}`, one]));
        for (const { difference, kind, name, expected: definition } of compareObjects(expected, actual)) {
          if (difference === 'unexpected') made.delete(`${kind}\0${name}`);
          else made.set(`${kind}\0${name}`, { kind, name, definition });
        }
        const sorted = (list: Iterable<DescribedObject>): string[] =>
          [...list].map(({ kind, name, definition }) => JSON.stringify([kind, name, definition])).toSorted();
        expect(sorted(made.values())).toEqual(sorted(expected));
      }),
    );
  });

  test('in a text names the first three and counts the rest', () => {
    const list = ['a', 'b', 'c', 'd', 'e'].map((name) => ({ kind: 'index', name, definition: '' }));
    expect(differencesText(compareObjects(list, []))).toBe(
      'index a is missing, index b is missing, index c is missing, and 2 more',
    );
  });
});

test.each([
  [['A1', 'B2'], ['A1', 'B2', 'C3'], []],
  [['A1', 'X9'], ['A1', 'B2'], ['unexpected X9']],
  [
    ['B2', 'A1'],
    ['A1', 'B2'],
    ['different B2', 'different A1'],
  ],
])('a record of migrations %j of the known %j differs in %j', (applied, known, expected) => {
  expect(compareMigrations(applied, known).map(({ difference, name }) => `${difference} ${name}`)).toEqual(expected);
});

describe('a repair', () => {
  const lost = (kind: string, name: string, expected: string) => ({
    difference: 'missing' as const,
    kind,
    name,
    expected,
    actual: '',
  });

  test('of a lost table is nobody’s, and neither is that of what stood on it', () => {
    const { steps, left } = planRepair('s', [
      lost('table', 'notes', 'kind r'),
      lost('column', 'notes.body', 'text'),
      lost('constraint', 'notes.notes_check', 'CHECK (true)'),
      lost('index', 'idx', 'CREATE INDEX idx ON s.notes USING btree (body)'),
      lost('rights', 'table notes', 'app=SELECT'),
      lost('trigger', 'notes.t', 'CREATE TRIGGER t'),
    ]);
    expect(steps).toEqual([]);
    expect(left).toHaveLength(6);
  });

  test('gives only the rights that are missing, and shuts a function that is made anew', () => {
    const { steps } = planRepair('s', [
      { difference: 'different', kind: 'rights', name: 'table n', expected: 'a=SELECT,o=ALL', actual: 'o=ALL' },
      lost('rights', 'routine f(integer)', 'a=EXECUTE,o=EXECUTE owner o'),
    ]);
    expect(steps.map(stepText)).toEqual([
      'GRANT SELECT ON TABLE s.n TO a',
      'REVOKE ALL ON ROUTINE s.f(integer) FROM PUBLIC',
      'GRANT EXECUTE ON ROUTINE s.f(integer) TO a',
      'GRANT EXECUTE ON ROUTINE s.f(integer) TO o',
    ]);
  });

  test('checks what was added unchecked', () => {
    const { steps } = planRepair('s', [
      lost('constraint', 'n.c', 'CHECK ((a > 0))'),
      {
        difference: 'different',
        kind: 'constraint',
        name: 'n.d',
        expected: 'CHECK ((b > 0))',
        actual: 'CHECK ((b > 0)) NOT VALID',
      },
    ]);
    expect(steps.map(stepText)).toEqual([
      'ALTER TABLE s.n ADD CONSTRAINT c CHECK ((a > 0)) NOT VALID',
      'ALTER TABLE s.n VALIDATE CONSTRAINT c',
      'ALTER TABLE s.n VALIDATE CONSTRAINT d',
    ]);
  });
});

test('the definition of an index is read as the catalog writes it, and nothing else is', () => {
  const partial = 'CREATE UNIQUE INDEX "Odd" ON ONLY s.t USING btree (a, lower(b)) WHERE (a > 0)';
  expect(parseIndex(partial)).toEqual({
    unique: true,
    name: '"Odd"',
    partitioned: true,
    table: 's.t',
    tableName: 't',
    rest: 'USING btree (a, lower(b)) WHERE (a > 0)',
  });
  expect(() => parseIndex('DROP INDEX i')).toThrow('not the definition of an index');
});
