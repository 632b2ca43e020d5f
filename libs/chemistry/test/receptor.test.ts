import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { ReceptorError, parseReceptor, receptorAtomsInBox } from '@mad/chemistry';

const HOST = readFileSync(resolve(import.meta.dirname, '../../../examples/beta-cyclodextrin.pdbqt'), 'utf8');
const ATOM = 'ATOM      1  O   UNL     1       5.172  -0.066  -0.816  0.00  0.00    -0.392 OA';

function problemsOf(text: string) {
  try {
    parseReceptor(text);
  } catch (error) {
    if (error instanceof ReceptorError) return error.problems;
    throw error;
  }
  throw new Error('the receptor was accepted');
}

describe('parseReceptor', () => {
  test('reads β-cyclodextrin: 77 heavy atoms and 21 polar hydrogens', () => {
    const { atoms, text } = parseReceptor(HOST);
    const hydrogens = atoms.filter(({ type }) => type === 'HD');
    expect([atoms.length - hydrogens.length, hydrogens.length]).toEqual([77, 21]);
    expect(atoms[0]).toEqual({
      record: 'ATOM',
      name: ' O  ',
      residue: 'UNL',
      chain: ' ',
      residueNumber: '   1 ',
      position: [5.172, -0.066, -0.816],
      charge: -0.392,
      type: 'OA',
    });
    expect(text.split('\n')[0]).toBe(ATOM);
  });

  test('the canonical text is its own canonical text', () => {
    const first = parseReceptor(HOST);
    expect(parseReceptor(first.text)).toEqual(first);
  });

  test('remarks, serial numbers, occupancies, signs of zero and line ends do not change it', () => {
    const plain = parseReceptor(`${ATOM}\n`);
    const dressed = ATOM.replace('     1  O', '    17  O').replace('0.00  0.00', '1.00 25.70');
    expect(parseReceptor(`REMARK mine\r\n${dressed}\r\nTER\r\nEND\r\n`).sha256).toBe(plain.sha256);
    const zero = ATOM.replace('-0.066', '-0.000');
    expect(parseReceptor(zero).text).toBe(parseReceptor(zero.replace('-0.000', ' 0.000')).text);
  });

  test('an order, a coordinate, a charge or a type changes it', () => {
    const other = ATOM.replace('5.172', '4.172');
    const hashes = [
      `${ATOM}\n${other}`,
      `${other}\n${ATOM}`,
      `${ATOM}\n${ATOM}`,
      `${ATOM}\n${other.replace('-0.392', '-0.391')}`,
      `${ATOM}\n${other.replace('OA', 'O ')}`,
    ].map((text) => parseReceptor(text).sha256);
    expect(new Set(hashes).size).toBe(hashes.length);
  });

  test.each([
    ['', 0, 'no atoms'],
    ['REMARK nothing else', 0, 'no atoms'],
    [`${ATOM}\nROOT`, 2, 'ROOT belongs to a ligand'],
    [`${ATOM}\nTORSDOF 3`, 2, 'TORSDOF belongs to a ligand'],
    [`MODEL 1\n${ATOM}\nENDMDL\nMODEL 2`, 4, 'second MODEL'],
    [`${ATOM}\nhello`, 2, "unknown record 'hello'"],
    [ATOM.replace(' 5.172', ' 5.1x2'), 1, "x is '5.1x2'"],
    [ATOM.replace('-0.066', '   NaN'), 1, "y is 'NaN'"],
    [ATOM.replace('-0.392', '   1e9'), 1, "charge is '1e9'"],
    [ATOM.replace('   5.172', '5000.172'), 1, 'x is 5000.172, beyond'],
    [ATOM.replace('OA', 'Xx'), 1, "'Xx' is no atom type"],
    [ATOM.slice(0, 60), 1, "charge is ''"],
    [ATOM.replace('O   UNL', 'O  BUNL'), 1, "alternate location 'B'"],
    [`${ATOM}\nREMARK \u00e9`, 2, 'ASCII'],
    [`${ATOM}\nREMARK \0`, 2, 'ASCII'],
  ])('refuses %j at line %i', (text, line, words) => {
    expect(problemsOf(text)[0]).toEqual({ line, message: expect.stringContaining(words) });
  });

  test('names every fault, up to twenty', () => {
    expect(problemsOf(`bad\n${ATOM}\nworse`).map(({ line }) => line)).toEqual([1, 3]);
    expect(problemsOf('bad\n'.repeat(1_000))).toHaveLength(20);
  });
});

test('receptorAtomsInBox counts what lies inside, the faces included', () => {
  const { atoms } = parseReceptor(HOST);
  expect(receptorAtomsInBox(atoms, { center: [1.363, -1.742, 2.94], size: [20, 20, 20] })).toBe(98);
  expect(receptorAtomsInBox(atoms, { center: [500, 0, 0], size: [20, 20, 20] })).toBe(0);
  expect(receptorAtomsInBox(atoms.slice(0, 1), { center: [4.172, -0.066, -0.816], size: [2, 1, 1] })).toBe(1);
});
