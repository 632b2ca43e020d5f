import { describe, expect, test } from '@jest/globals';
import { MAX_ATOMS, MAX_SMILES_LENGTH, checkSmiles } from '@mad/chemistry';

describe('checkSmiles', () => {
  test('lets a plain molecule through', () => {
    expect(checkSmiles('C[C@H](N)C(=O)O')).toBeUndefined();
  });

  test.each([
    ['nothing', '', 'EMPTY', 'empty'],
    ['a leading blank', ' CCO', 'NOT_ASCII', 'character 1 is a blank'],
    ['a Cyrillic letter', 'CC\u041e', 'NOT_ASCII', 'character 3 is U+041E'],
    ['a NUL', 'CC\0O', 'NOT_ASCII', 'character 3 is U+0000'],
    ['a line end', 'CC\nO', 'NOT_ASCII', 'character 3 is U+000A'],
    ['an emoji', 'C\u{1f600}', 'NOT_ASCII', 'character 2 is U+1F600'],
    ['1,000 carbons', 'C'.repeat(1_000), 'TOO_LONG', '1000 characters'],
    ['100,000 carbons', 'C'.repeat(100_000), 'TOO_LONG', '100000 characters'],
    ['401 carbons', 'C'.repeat(MAX_ATOMS + 1), 'TOO_MANY_ATOMS', '401 atoms'],
    ['300 chlorines', 'Cl'.repeat(MAX_SMILES_LENGTH / 2), undefined, ''],
  ])('%s', (_, smiles, reason, words) => {
    const refusal = checkSmiles(smiles);
    expect(refusal?.reason).toBe(reason);
    expect(refusal?.message ?? '').toContain(words);
  });

  test('counts a bracket atom once and a two-letter halogen once', () => {
    expect(checkSmiles('[13C@@H]'.repeat(75))).toBeUndefined();
    expect(checkSmiles('Br'.repeat(300))).toBeUndefined();
  });
});
