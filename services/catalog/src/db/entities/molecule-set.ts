import { EntitySchema } from '@mad/postgres';

/** A row of catalog.molecule_sets. */
export interface MoleculeSetRow {
  org_id: string;
  molecule_set_id: string;
  /** Empty for a job's input. */
  name: string;
  size: number;
  sealed_at: Date | null;
  created_by: string;
  created_at: Date;
}

export const MoleculeSetEntity = new EntitySchema<MoleculeSetRow>({
  name: 'molecule_sets',
  schema: 'catalog',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'molecule_sets_pkey' },
    molecule_set_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'molecule_sets_pkey',
      default: () => 'gen_random_uuid()',
    },
    name: { type: 'text', default: '', comment: "Confidential: the name of a library; empty for a job's input" },
    size: { type: 'integer', default: 0, comment: 'Confidential: how many members it has' },
    sealed_at: { type: 'timestamptz', precision: 3, nullable: true },
    created_by: { type: 'uuid', comment: 'PII: the user who created it' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});

/** A row of catalog.molecule_set_members. */
export interface MoleculeSetMemberRow {
  org_id: string;
  molecule_set_id: string;
  item_no: number;
  molecule_id: string;
}

export const MoleculeSetMemberEntity = new EntitySchema<MoleculeSetMemberRow>({
  name: 'molecule_set_members',
  schema: 'catalog',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'molecule_set_members_pkey' },
    molecule_set_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'molecule_set_members_pkey' },
    item_no: { type: 'integer', primary: true, primaryKeyConstraintName: 'molecule_set_members_pkey' },
    molecule_id: { type: 'uuid' },
  },
});
