export { openChemistry } from './chemistry.ts';
export type { AskOptions, Chemistry, ChemistryOptions } from './chemistry.ts';
export { FINGERPRINT_BYTES, PROPERTY_UNITS } from './molecule.ts';
export type { MoleculeProperties, MoleculeRow, Normalized, PropertyName, Similar } from './molecule.ts';
export { ReceptorError, parseReceptor, receptorAtomsInBox } from './receptor.ts';
export type { Box, Receptor, ReceptorAtom, ReceptorProblem } from './receptor.ts';
export { MAX_ATOMS, MAX_MOLECULAR_WEIGHT, MAX_SMILES_LENGTH, checkSmiles, isRejected } from './smiles.ts';
export type { RejectReason, Rejected } from './smiles.ts';
export { tanimoto } from './tanimoto.ts';
