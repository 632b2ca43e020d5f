import { defineMigration } from '@mad/postgres';

/** Exports: hits as files, written in parts, pinned to the event at which they began. */
export const Exports = defineMigration(import.meta.url, {
  up: `
  ALTER TABLE results.task_results ADD COLUMN ended_seq integer;
  COMMENT ON COLUMN results.task_results.ended_seq IS 'Internal: the first event of the transaction that ended it; null where it ended before there was this column, or nobody asks';

  CREATE TABLE results.exports (
    export_id uuid NOT NULL,
    job_id uuid NOT NULL,
    task_id text NOT NULL,
    format text NOT NULL,
    filter text NOT NULL DEFAULT '',
    best_per_molecule boolean NOT NULL DEFAULT false,
    state text NOT NULL DEFAULT 'running',
    snapshot_seq bigint NOT NULL,
    part_rows integer NOT NULL,
    expected_rows bigint NOT NULL DEFAULT 0,
    rows_done bigint NOT NULL DEFAULT 0,
    size_bytes bigint NOT NULL DEFAULT 0,
    next_hit jsonb,
    lease_owner uuid,
    lease_until timestamptz,
    manifest json,
    error text NOT NULL DEFAULT '',
    created_by text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    CONSTRAINT exports_pkey PRIMARY KEY (export_id),
    CONSTRAINT exports_format_check CHECK (format IN ('csv', 'sdf', 'parquet', 'jsonl')),
    CONSTRAINT exports_state_check CHECK (state IN ('running', 'completed', 'failed')),
    CONSTRAINT exports_ended_check CHECK ((state = 'running') = (ended_at IS NULL)),
    CONSTRAINT exports_part_rows_check CHECK (part_rows >= 1),
    CONSTRAINT exports_counts_check CHECK (least(snapshot_seq, expected_rows, rows_done, size_bytes) >= 0),
    CONSTRAINT exports_next_hit_check CHECK (jsonb_typeof(next_hit) = 'array'),
    CONSTRAINT exports_lease_check CHECK (num_nulls(lease_owner, lease_until) IN (0, 2)),
    CONSTRAINT exports_manifest_check CHECK (json_typeof(manifest) = 'object'),
    CONSTRAINT exports_created_by_check CHECK (char_length(created_by) <= 36)
  );
  CREATE INDEX idx_exports_job_created_at ON results.exports (job_id, created_at DESC, export_id DESC);
  COMMENT ON TABLE results.exports IS 'Confidential: hits as files. Who holds the lease writes the next part, after next_hit; its id is the request''s that began it.';
  COMMENT ON COLUMN results.exports.filter IS 'Confidential: which hits, in the words of who asked';
  COMMENT ON COLUMN results.exports.manifest IS 'Confidential: what it is, with every part''s checksum; null until it is whole';
  COMMENT ON COLUMN results.exports.created_by IS 'PII: the user who asked; no name, no foreign key';

  CREATE TABLE results.export_parts (
    export_id uuid NOT NULL,
    part_no integer NOT NULL,
    object_id uuid NOT NULL,
    rows integer NOT NULL,
    size_bytes bigint NOT NULL,
    sha256 text NOT NULL,
    CONSTRAINT export_parts_pkey PRIMARY KEY (export_id, part_no),
    CONSTRAINT export_parts_export_fkey FOREIGN KEY (export_id) REFERENCES results.exports (export_id) ON DELETE CASCADE,
    CONSTRAINT export_parts_part_no_check CHECK (part_no >= 1),
    CONSTRAINT export_parts_rows_check CHECK (rows >= 0),
    CONSTRAINT export_parts_size_bytes_check CHECK (size_bytes >= 0),
    CONSTRAINT export_parts_sha256_check CHECK (sha256 ~ '^[0-9a-f]{64}$')
  );
  COMMENT ON TABLE results.export_parts IS 'Internal: the files of exports that are written whole.';`,

  down: `
  DROP TABLE results.export_parts;
  DROP TABLE results.exports;
  ALTER TABLE results.task_results DROP COLUMN ended_seq;`,
});
