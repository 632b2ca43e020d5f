import type { Rejected } from './smiles.ts';

/** Computed properties, by the names they have in the database and in every answer. */
export const PROPERTY_UNITS = {
  molecular_weight: 'g/mol',
  exact_mass: 'Da',
  logp: '',
  molar_refractivity: '',
  tpsa: 'Å²',
  hbd: '',
  hba: '',
  rings: '',
  aromatic_rings: '',
  rotatable_bonds: '',
  heavy_atoms: '',
  fraction_csp3: '',
  stereo_centers: '',
  formal_charge: 'e',
} as const;

/** The name of a computed property; `PROPERTY_UNITS` holds its unit ('' where it has none). */
export type PropertyName = keyof typeof PROPERTY_UNITS;

/**
 * Every computed property of one molecule; logP and molar refractivity are Crippen's estimates. Values are RDKit's own,
 * unrounded: two spellings of a molecule may differ in the last bit of a sum.
 */
export type MoleculeProperties = Record<PropertyName, number>;

/** Bytes of a fingerprint: Morgan, radius 2, 2,048 bits. */
export const FINGERPRINT_BYTES = 256;

/** A row of a library as a scientist gives it. The name is the caller's and is not read here. */
export interface MoleculeRow {
  smiles: string;
  name?: string;
}

/** What RDKit says of a molecule it accepts. */
export interface Normalized {
  /** RDKit's canonical isomeric SMILES: the identity of the molecule. */
  canonicalSmiles: string;
  /** The InChIKey, a search key only; null for the few molecules InChI cannot describe (dative bonds, for one). */
  inchikey: string | null;
  /** Molecular formula in Hill order, with its charge. */
  formula: string;
  /** Average molecular weight in g/mol. */
  molecularWeight: number;
  properties: MoleculeProperties;
  /** Morgan fingerprint, radius 2, 2,048 bits in 256 bytes. */
  fingerprint: Uint8Array;
}

/** A molecule's Tanimoto similarity to the reference, 0 to 1. */
export interface Similar {
  similarity: number;
}

/** The questions a thread answers, each about one SMILES: what goes in besides it and what comes out. */
export interface Questions {
  normalize: { with: undefined; answer: Normalized };
  fingerprint: { with: undefined; answer: { fingerprint: Uint8Array } };
  respell: { with: number; answer: { smiles: string } };
}

export type QuestionKind = keyof Questions;

/** An answer to a question, or why the molecule was refused. */
export type Outcome<K extends QuestionKind> = Questions[K]['answer'] | Rejected;
