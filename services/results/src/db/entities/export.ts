import { EntitySchema } from '@mad/postgres';
import type { ExportFormatName, ExportStateName } from '../../domain/export-format.ts';

/** A row of results.exports. */
export interface ExportEntityRow {
  export_id: string;
  job_id: string;
  task_id: string;
  format: ExportFormatName;
  filter: string;
  best_per_molecule: boolean;
  state: ExportStateName;
  snapshot_seq: number;
  part_rows: number;
  expected_rows: number;
  rows_done: number;
  size_bytes: number;
  /** Where the next part goes on; null at the beginning. */
  next_hit: [score: number, itemNo: number, rank: number] | null;
  lease_owner: string | null;
  lease_until: Date | null;
  manifest: Record<string, unknown> | null;
  error: string;
  created_by: string;
  created_at: Date;
  ended_at: Date | null;
}

export const ExportEntity = new EntitySchema<ExportEntityRow>({
  name: 'exports',
  schema: 'results',
  columns: {
    export_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'exports_pkey' },
    job_id: { type: 'uuid' },
    task_id: { type: 'text' },
    format: { type: 'text' },
    filter: { type: 'text', default: '', comment: 'Confidential: which hits, in the words of who asked' },
    best_per_molecule: { type: 'boolean', default: false },
    state: { type: 'text', default: 'running' },
    snapshot_seq: { type: 'bigint' },
    part_rows: { type: 'integer' },
    expected_rows: { type: 'bigint', default: 0 },
    rows_done: { type: 'bigint', default: 0 },
    size_bytes: { type: 'bigint', default: 0 },
    next_hit: { type: 'jsonb', nullable: true },
    lease_owner: { type: 'uuid', nullable: true },
    lease_until: { type: 'timestamptz', nullable: true },
    manifest: {
      // Not jsonb: people read it, in the order in which it was written.
      type: 'json',
      nullable: true,
      comment: "Confidential: what it is, with every part's checksum; null until it is whole",
    },
    error: { type: 'text', default: '' },
    created_by: { type: 'text', default: '', comment: 'PII: the user who asked; no name, no foreign key' },
    created_at: { type: 'timestamptz', default: () => 'now()' },
    ended_at: { type: 'timestamptz', nullable: true },
  },
});

/** A row of results.export_parts. */
export interface ExportPartRow {
  export_id: string;
  part_no: number;
  object_id: string;
  rows: number;
  size_bytes: number;
  sha256: string;
}

export const ExportPartEntity = new EntitySchema<ExportPartRow>({
  name: 'export_parts',
  schema: 'results',
  columns: {
    export_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'export_parts_pkey' },
    part_no: { type: 'integer', primary: true, primaryKeyConstraintName: 'export_parts_pkey' },
    object_id: { type: 'uuid' },
    rows: { type: 'integer' },
    size_bytes: { type: 'bigint' },
    sha256: { type: 'text' },
  },
});
