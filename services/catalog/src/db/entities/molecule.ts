import { EntitySchema } from '@mad/postgres';

/** A row of catalog.molecules. The driver gives numeric and bigint as text. */
export interface MoleculeRow {
  org_id: string;
  molecule_id: string;
  name: string;
  synonyms: string[];
  description: string;
  smiles: string;
  canonical_smiles: string;
  inchikey: string | null;
  formula: string;
  molecular_weight: string;
  format: 'sdf' | 'pdb' | 'mol2' | 'smiles' | 'pdbqt';
  uri: string | null;
  size_bytes: string | null;
  checksum: string | null;
  properties: Record<string, number>;
  fingerprint: Uint8Array;
  normalizer: string;
  search: string;
  created_by: string;
  created_at: Date;
  updated_at: Date;
}

export const MoleculeEntity = new EntitySchema<MoleculeRow>({
  name: 'molecules',
  schema: 'catalog',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'molecules_pkey' },
    molecule_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'molecules_pkey',
      default: () => 'gen_random_uuid()',
    },
    name: { type: 'text', comment: 'Confidential: the name it was first registered under' },
    synonyms: {
      type: 'text',
      array: true,
      default: [],
      comment: 'Confidential: other names it was registered under',
    },
    description: { type: 'text', default: '', comment: 'Confidential: free text' },
    smiles: { type: 'text', comment: 'Confidential: the structure as first given' },
    canonical_smiles: {
      type: 'text',
      comment: 'Confidential: RDKit canonical isomeric SMILES, the identity of the molecule',
    },
    inchikey: {
      type: 'text',
      nullable: true,
      comment: 'Confidential: search key, null where InChI cannot describe the molecule; not an identity',
    },
    formula: { type: 'text' },
    molecular_weight: { type: 'numeric', precision: 10, scale: 4 },
    format: {
      type: 'enum',
      enum: ['sdf', 'pdb', 'mol2', 'smiles', 'pdbqt'],
      enumName: 'molecule_format',
      default: 'smiles',
    },
    uri: { type: 'text', nullable: true, comment: 'Confidential: the file it came from, where one is kept' },
    size_bytes: { type: 'bigint', nullable: true, comment: 'Internal: size of that file in bytes' },
    checksum: { type: 'text', nullable: true, comment: 'Internal: sha256 of that file, hex' },
    properties: { type: 'jsonb', comment: 'Confidential: computed properties by name' },
    fingerprint: { type: 'bytea', comment: 'Confidential: Morgan fingerprint, radius 2, 2,048 bits' },
    normalizer: { type: 'text', comment: 'Internal: what computed the canonical form, with its version' },
    search: {
      type: 'tsvector',
      comment: 'Confidential: words of the names and the description, kept by the trigger index_molecule',
    },
    created_by: { type: 'uuid', comment: 'PII: the user who registered it' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});

/** A row of catalog.org_usage. */
export interface OrgUsageRow {
  org_id: string;
  molecules: string;
  artifact_bytes: string;
}

export const OrgUsageEntity = new EntitySchema<OrgUsageRow>({
  name: 'org_usage',
  schema: 'catalog',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'org_usage_pkey' },
    molecules: { type: 'bigint', default: 0 },
    artifact_bytes: { type: 'bigint', default: 0 },
  },
});
