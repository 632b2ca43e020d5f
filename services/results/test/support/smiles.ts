let given = 0;

/** SMILES that no other call in this file was given: a number in binary, short also after thousands. */
export const newSmiles = (count: number): string[] =>
  Array.from({ length: count }, () => {
    given += 1;
    return `CS${given.toString(2).replaceAll('0', 'N').replaceAll('1', 'O')}`;
  });
