import { hasControlCharacters, isBlank, shortened } from './text.ts';

/** A row of a library as somebody gave it. */
export interface GivenRow {
  smiles: string;
  name: string;
}

/** A row that RDKit may judge. */
export interface LibraryRow extends GivenRow {
  /** Its place, from 1. */
  line: number;
}

/** A row that was refused. */
export interface RefusedRow {
  line: number;
  /** As given, shortened. */
  smiles: string;
  reason: string;
  message: string;
}

const MAX_NAME_LENGTH = 255;
const SHOWN_SMILES_LENGTH = 200;

/** A refusal of a row. */
export function refuse(line: number, smiles: string, reason: string, message: string): RefusedRow {
  return { line, smiles: shortened(smiles, SHOWN_SMILES_LENGTH), reason, message };
}

/** Reads a row: the first token of its SMILES, its name without blanks around it. `line` counts from 1. */
export function readRow({ smiles, name }: GivenRow, line: number): LibraryRow | RefusedRow {
  const trimmed = name.trim();
  if (hasControlCharacters(trimmed)) {
    return refuse(line, smiles, 'NAME_INVALID', 'the name has control characters');
  }
  if (!trimmed.isWellFormed() || Array.from(trimmed).length > MAX_NAME_LENGTH) {
    return refuse(line, smiles, 'NAME_INVALID', `the name has more than the ${MAX_NAME_LENGTH} characters allowed`);
  }
  // Files put the name behind the SMILES. Other blanks than these are left for the check of the SMILES itself.
  const [token = ''] = smiles.replace(/^[ \t]+/, '').split(/[ \t]/, 1);
  return { line, smiles: token, name: isBlank(trimmed) ? '' : trimmed };
}

/** True for a row that `readRow` or RDKit refused. */
export function isRefused(row: object): row is RefusedRow {
  return 'reason' in row;
}

/** Names to add to a molecule: new ones only, as far as there is room. */
export function newSynonyms(
  known: { name: string; synonyms: readonly string[] },
  names: Iterable<string>,
  room: number,
) {
  const taken = new Set([known.name, ...known.synonyms]);
  const added = [...new Set(names)].filter((name) => name !== '' && !taken.has(name));
  return added.slice(0, Math.max(0, room - known.synonyms.length));
}
