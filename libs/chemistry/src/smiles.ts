/** Longest SMILES accepted, in characters; also the width of the database's `smiles_string` domain. */
export const MAX_SMILES_LENGTH = 600;

/** Most atoms accepted. About 600 make RDKit's WASM module hang and 1,000 destroy it for every later call. */
export const MAX_ATOMS = 400;

/** Molecular weights are kept below this (g/mol), the bound of the database's `molecular_weight` domain. */
export const MAX_MOLECULAR_WEIGHT = 10_000;

/** Why a molecule was refused. The set is closed: callers may branch on it and show it. */
export type RejectReason =
  | 'EMPTY'
  | 'NOT_ASCII'
  | 'TOO_LONG'
  | 'TOO_MANY_ATOMS'
  | 'UNPARSABLE'
  | 'PLACEHOLDER_ATOM'
  | 'TOO_HEAVY'
  | 'TIMEOUT'
  | 'CRASHED';

/** A molecule that was refused: a reason to branch on and a sentence for the chemist who wrote the SMILES. */
export interface Rejected {
  reason: RejectReason;
  message: string;
}

/** Tells a refusal from an answer in the lists this library returns. */
export function isRejected(outcome: object): outcome is Rejected {
  return 'reason' in outcome;
}

// One match per atom: a bracket atom, a two-letter halogen, or one letter of the organic subset.
const ATOM = /\[[^\]]*\]?|Cl|Br|[BCNOPSFIbcnops*]/g;

/**
 * Checks what must hold before RDKit may see a SMILES at all; pure and quick.
 * Blanks and control characters count as NOT_ASCII, since RDKit stops reading at them without saying so.
 * @returns the refusal, or undefined when RDKit may try.
 */
export function checkSmiles(smiles: string): Rejected | undefined {
  if (smiles === '') return { reason: 'EMPTY', message: 'the SMILES is empty' };
  if (smiles.length > MAX_SMILES_LENGTH) {
    return {
      reason: 'TOO_LONG',
      message: `the SMILES has ${smiles.length} characters, more than the ${MAX_SMILES_LENGTH} allowed`,
    };
  }
  const foreign = /[^\x21-\x7e]/u.exec(smiles);
  if (foreign) {
    const code = foreign[0].codePointAt(0) ?? 0;
    const named = code === 0x20 ? 'a blank' : `U+${code.toString(16).toUpperCase().padStart(4, '0')}`;
    return {
      reason: 'NOT_ASCII',
      message: `character ${foreign.index + 1} is ${named}; a SMILES is printable ASCII without blanks`,
    };
  }
  const atoms = smiles.match(ATOM)?.length ?? 0;
  if (atoms > MAX_ATOMS) {
    return {
      reason: 'TOO_MANY_ATOMS',
      message: `the molecule has ${atoms} atoms, more than the ${MAX_ATOMS} allowed`,
    };
  }
  return undefined;
}
