import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { MoleculeSchema, MoleculeSetSchema, type Molecule, type MoleculeSet } from '@mad/proto/catalog';
import type { MoleculeSetRow } from '../db/entities/molecule-set.ts';
import type { MoleculeRow } from '../db/entities/molecule.ts';

/** The columns of a molecule, without `SELECT *`. */
export const MOLECULE_COLUMNS = `molecule_id, org_id, name, synonyms, description, smiles, canonical_smiles, inchikey,
  formula, molecular_weight, properties, normalizer, created_at, updated_at`;

/** The columns of a molecule set. */
export const MOLECULE_SET_COLUMNS = 'molecule_set_id, org_id, name, size, sealed_at, created_at';

/** A molecule as callers see it. */
export function moleculeMessage(row: MoleculeRow): Molecule {
  return create(MoleculeSchema, {
    moleculeId: row.molecule_id,
    orgId: row.org_id,
    name: row.name,
    synonyms: row.synonyms,
    description: row.description,
    smiles: row.smiles,
    canonicalSmiles: row.canonical_smiles,
    inchikey: row.inchikey ?? '',
    formula: row.formula,
    molecularWeight: Number(row.molecular_weight),
    properties: row.properties,
    normalizer: row.normalizer,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
  });
}

/** A molecule set as callers see it. */
export function moleculeSetMessage(row: MoleculeSetRow): MoleculeSet {
  return create(MoleculeSetSchema, {
    moleculeSetId: row.molecule_set_id,
    orgId: row.org_id,
    name: row.name,
    size: row.size,
    sealed: row.sealed_at !== null,
    createTime: timestampFromDate(row.created_at),
  });
}
