import { defineMigration } from '@mad/postgres';

/**
 * Structures of poses as objects, and a note of every object of the tenant. The column pose_uri goes: nothing ever wrote or
 * read it. Items keep the molecule's name.
 */
export const PoseObjects = defineMigration(import.meta.url, {
  up: `
  CREATE TABLE results.stored_objects (
    object_id uuid NOT NULL,
    purpose text NOT NULL,
    owner_id uuid NOT NULL,
    task_execution_id uuid,
    state text NOT NULL DEFAULT 'writing',
    size_bytes bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT stored_objects_pkey PRIMARY KEY (object_id),
    CONSTRAINT stored_objects_purpose_check CHECK (purpose IN ('poses', 'exports')),
    CONSTRAINT stored_objects_state_check CHECK (state IN ('writing', 'kept', 'dropped')),
    CONSTRAINT stored_objects_size_bytes_check CHECK (size_bytes >= 0)
  );
  CREATE INDEX idx_stored_objects_owner ON results.stored_objects (owner_id);
  CREATE INDEX idx_stored_objects_execution ON results.stored_objects (task_execution_id) WHERE task_execution_id IS NOT NULL;
  CREATE INDEX idx_stored_objects_sweep ON results.stored_objects (state, created_at) WHERE state <> 'kept';
  COMMENT ON TABLE results.stored_objects IS 'Internal: every object of this tenant, noted before it is written. owner_id is a job for poses, an export for its parts. What is dropped, or writing for long, is swept.';

  ALTER TABLE results.docking_results DROP COLUMN pose_uri,
    ADD COLUMN pose_object uuid,
    ADD COLUMN pose_offset integer,
    ADD COLUMN pose_length integer,
    ADD CONSTRAINT docking_results_pose_check CHECK (num_nulls(pose_object, pose_offset, pose_length) IN (0, 3)
      AND (pose_object IS NULL OR (pose_offset >= 0 AND pose_length >= 1)));
  COMMENT ON COLUMN results.docking_results.pose_object IS 'Internal: the object that holds its structure; null where the engine gave none';
  COMMENT ON COLUMN results.docking_results.pose_offset IS 'Internal: where its piece begins in the object, bytes';
  COMMENT ON COLUMN results.docking_results.pose_length IS 'Internal: how long its piece is, bytes';

  ALTER TABLE results.task_results ADD COLUMN molecule_name text NOT NULL DEFAULT '';
  COMMENT ON COLUMN results.task_results.molecule_name IS 'Confidential: of the molecule, when the job was made; empty where catalog did not say';`,

  down: `
  ALTER TABLE results.task_results DROP COLUMN molecule_name;
  ALTER TABLE results.docking_results DROP CONSTRAINT docking_results_pose_check,
    DROP COLUMN pose_length, DROP COLUMN pose_offset, DROP COLUMN pose_object, ADD COLUMN pose_uri text;
  DROP TABLE results.stored_objects;`,
});
