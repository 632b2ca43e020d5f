import type { Rejected } from './smiles.ts';

type Explain = (match: RegExpMatchArray) => string;

// What RDKit logs when it refuses a SMILES, and what a chemist wants to read. RDKit counts atoms from 0, people from 1.
const EXPLANATIONS: [RegExp, Explain][] = [
  [
    /Explicit valence for atom # (\d+) (\w+), (\d+), is greater than permitted/,
    ([, atom, element, bonds]) => `atom ${Number(atom) + 1} (${element}) has ${bonds} bonds, more than it can form`,
  ],
  [
    /Unkekulized atoms: ([\d ]+)/,
    ([, atoms = '']) =>
      `the aromatic atoms ${atoms
        .trim()
        .split(/ +/)
        .map((atom) => Number(atom) + 1)
        .join(', ')} have no Kekulé structure; is a hydrogen missing, as in [nH]?`,
  ],
  [
    /non-ring atom (\d+) marked aromatic/,
    ([, atom]) => `atom ${Number(atom) + 1} is written as aromatic but is in no ring`,
  ],
  [/unclosed ring/, () => 'a ring is opened and never closed'],
  [/duplicated ring closure/, () => 'a ring closure joins an atom to itself or two atoms twice'],
  [/extra open parentheses|extra close parentheses/, () => 'the parentheses do not match'],
  [/check for mistakes around position (\d+)/, ([, position]) => `syntax error near character ${position}`],
];

/**
 * Turns RDKit's log of a failed parse into a refusal a chemist understands.
 * @param log what RDKit logged while parsing; its wording is not stable, so an unknown text gives a general sentence.
 */
export function parseFailure(log: string): Rejected {
  for (const [pattern, explain] of EXPLANATIONS) {
    const match = log.match(pattern);
    if (match) return { reason: 'UNPARSABLE', message: explain(match) };
  }
  return { reason: 'UNPARSABLE', message: 'not a valid SMILES' };
}
