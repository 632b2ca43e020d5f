import { describe, expect, test } from '@jest/globals';
import { isRefused, newSynonyms, readRow } from '../src/domain/library-rows.ts';

describe('a row', () => {
  test.each([
    [
      { smiles: 'CCO', name: 'ethanol' },
      { smiles: 'CCO', name: 'ethanol' },
    ],
    [
      { smiles: ' CCO\tethanol 2', name: ' \u00a0' },
      { smiles: 'CCO', name: '' },
    ],
    [
      { smiles: 'C\u00a0C', name: '' },
      { smiles: 'C\u00a0C', name: '' },
    ],
    [
      { smiles: 'C', name: '\u{1F9EA}'.repeat(255) },
      { smiles: 'C', name: '\u{1F9EA}'.repeat(255) },
    ],
  ])('%j is read', (given, read) => {
    expect(readRow(given, 3)).toEqual({ line: 3, ...read });
  });

  test.each(['a\nb', 'x'.repeat(256), '\ud800'])('with the name %j is refused', (name) => {
    const row = readRow({ smiles: 'C'.repeat(300), name }, 1);
    expect(isRefused(row) && row.reason).toBe('NAME_INVALID');
    expect(isRefused(row) && row.smiles.length).toBe(200);
  });
});

test('synonyms are new names, each once, as far as there is room', () => {
  const known = { name: 'a', synonyms: ['b'] };
  expect(newSynonyms(known, ['a', 'b', 'c', '', 'c', 'd'], 3)).toEqual(['c', 'd']);
  expect(newSynonyms(known, ['c', 'd', 'e'], 2)).toEqual(['c']);
  expect(newSynonyms(known, ['c'], 1)).toEqual([]);
});
