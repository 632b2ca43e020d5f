import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { inDependencyOrder } from '../src/tenant-tables.ts';

/** Tables that refer only to those with a smaller number, or to themselves, in any order. */
const acyclic = fc.array(fc.array(fc.nat({ max: 30 }), { maxLength: 4 }), { maxLength: 20 }).chain((references) => {
  const tables = references.map((numbers, index) => ({
    name: `t${index}`,
    known_as: [`t${index}`],
    refers_to: numbers.map((number) => `t${number % (index + 1)}`),
  }));
  return fc.shuffledSubarray(tables, { minLength: tables.length });
});

describe('the order of tables', () => {
  test('has each after those it refers to, and none is lost or doubled', () => {
    fc.assert(
      fc.property(acyclic, (tables) => {
        const ordered = inDependencyOrder(tables);
        expect(ordered.map(({ name }) => name).toSorted()).toEqual(tables.map(({ name }) => name).toSorted());
        const place = new Map(ordered.map(({ name }, index) => [name, index]));
        for (const { name, refers_to: names } of ordered) {
          for (const other of names) if (other !== name) expect(place.get(other)).toBeLessThan(place.get(name)!);
        }
      }),
    );
  });

  test('ends also where tables refer to each other in a circle', () => {
    const table = (name: string, ...others: string[]) => ({ name, known_as: [name], refers_to: others });
    const ordered = inDependencyOrder([table('a', 'b'), table('b', 'a'), table('c', 'b')]);
    expect(ordered.map(({ name }) => name).toSorted()).toEqual(['a', 'b', 'c']);
  });

  test('takes a reference to a partitioned table for one to each of its partitions', () => {
    const partition = { name: 'parent_1', known_as: ['parent_1', 'parent'], refers_to: [] };
    const child = { name: 'a_child', known_as: ['a_child'], refers_to: ['parent'] };
    expect(inDependencyOrder([child, partition])).toEqual([partition, child]);
  });
});
