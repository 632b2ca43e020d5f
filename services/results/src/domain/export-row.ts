/** A hit as people take it away: flat, the same in every format. Null where it is not known or there is none. */
export interface ExportRow {
  rank: number | null;
  item_no: number;
  molecule_id: string;
  molecule_name: string;
  smiles: string;
  score: number;
  score_units: string;
  confidence_score: number | null;
  source: 'cached' | 'fresh';
  reused_from_job_id: string | null;
  reused_from_item_no: number | null;
  molecular_weight: number | null;
  logp: number | null;
  tpsa: number | null;
  hbd: number | null;
  hba: number | null;
  rotatable_bonds: number | null;
  pose_replicate: number | null;
  pose_rank: number | null;
  pose_score: number | null;
  pose_raw_score: number | null;
  input_signature: string;
  /** JSON. */
  result_data: string | null;
}

export type ColumnType = 'integer' | 'number' | 'text';

/** A column of an export. */
export interface ExportColumn {
  name: keyof ExportRow;
  type: ColumnType;
  nullable: boolean;
}

const column = (name: keyof ExportRow, type: ColumnType, nullable = false): ExportColumn => ({ name, type, nullable });

/** The columns of an export, in their order. */
export const EXPORT_COLUMNS: readonly ExportColumn[] = [
  column('rank', 'integer', true),
  column('item_no', 'integer'),
  column('molecule_id', 'text'),
  column('molecule_name', 'text'),
  column('smiles', 'text'),
  column('score', 'number'),
  column('score_units', 'text'),
  column('confidence_score', 'number', true),
  column('source', 'text'),
  column('reused_from_job_id', 'text', true),
  column('reused_from_item_no', 'integer', true),
  column('molecular_weight', 'number', true),
  column('logp', 'number', true),
  column('tpsa', 'number', true),
  column('hbd', 'integer', true),
  column('hba', 'integer', true),
  column('rotatable_bonds', 'integer', true),
  column('pose_replicate', 'integer', true),
  column('pose_rank', 'integer', true),
  column('pose_score', 'number', true),
  column('pose_raw_score', 'number', true),
  column('input_signature', 'text'),
  column('result_data', 'text', true),
];
