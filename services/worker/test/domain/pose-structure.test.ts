import { describe, expect, test } from '@jest/globals';
import { PoseStructures } from '../../src/domain/pose-structure.ts';
import type { PoseAtom } from '../../src/domain/vina-output.ts';

const atom = (x: number, y: number, z: number, symbol: string): string =>
  `${[x, y, z].map((value) => value.toFixed(4).padStart(10)).join('')} ${symbol.padEnd(2)}  0  0  0  0  0  0  0  0  0  0  0  0`;

/** An ammonium with a hydrogen of each kind: on carbon, which docking merges, and on nitrogen, which it keeps. */
const MOLFILE = [
  '',
  'made by hand',
  '',
  '  4  3  0  0  0  0  0  0  0  0999 V2000',
  atom(0.12344, 0, 0, 'C'),
  atom(-1, 0, 0, 'H'),
  atom(1.5, 0, 0, 'N'),
  atom(2, 0.9, 0, 'H'),
  '  1  2  1  0  0  0  0',
  '  1  3  1  0  0  0  0',
  '  3  4  1  0  0  0  0',
  'M  CHG  1   3   1',
  'M  ISO  2   2   2   4   2',
  'M  END',
  '',
].join('\n');

const at = (type: string, ...position: [number, number, number]): PoseAtom => ({ type, position });
/** As Open Babel writes it: another order, three decimals, no hydrogen on carbon. */
const PREPARED = [at('N', 1.5, 0, 0), at('HD', 2, 0.9, 0), at('C', 0.123, 0, 0)];

describe('a pose as a structure', () => {
  test('has the docked coordinates, and bonds, charges and isotopes of the atoms that were docked', () => {
    const structures = new PoseStructures(MOLFILE, PREPARED);
    const block = structures.molBlock([at('N', 10, 20, 30), at('HD', 11, 21, 31), at('C', -9.5, 0, 1)]);
    expect(block.split('\n')).toEqual([
      '',
      '  MAD               3D',
      '',
      '  3  2  0  0  0  0  0  0  0  0999 V2000',
      atom(-9.5, 0, 1, 'C'),
      atom(10, 20, 30, 'N'),
      atom(11, 21, 31, 'H'),
      '  1  2  1  0  0  0  0',
      '  2  3  1  0  0  0  0',
      'M  CHG  1   2   1',
      'M  ISO  1   3   2',
      'M  END',
      '',
    ]);
  });

  test('an atom that is nowhere in the molfile is refused', () => {
    expect(() => new PoseStructures(MOLFILE, [at('C', 0.2, 0, 0)])).toThrow('atom 1 of the ligand');
    // Two atoms at the place of one.
    expect(() => new PoseStructures(MOLFILE, [PREPARED[0]!, PREPARED[0]!])).toThrow('atom 2 of the ligand');
  });

  test('a pose of another molecule is refused', () => {
    const structures = new PoseStructures(MOLFILE, PREPARED);
    expect(() => structures.molBlock(PREPARED.slice(1))).toThrow('the pose has 2 atoms, its ligand 3');
  });
});
