import { defineMigration } from '@mad/postgres';

/** Results come in numbered batches; items keep what their molecules' properties were. */
export const ResultBatches = defineMigration(import.meta.url, {
  up: `
  ALTER TABLE results.task_executions ADD COLUMN batches integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT task_executions_batches_check CHECK (batches >= 0);
  COMMENT ON COLUMN results.task_executions.batches IS 'Internal: batches of results taken from the running attempt; the next is one more';

  ALTER TABLE results.task_results
    ADD COLUMN molecular_weight double precision,
    ADD COLUMN logp double precision,
    ADD COLUMN tpsa double precision,
    ADD COLUMN hbd smallint,
    ADD COLUMN hba smallint,
    ADD COLUMN rotatable_bonds smallint,
    ADD CONSTRAINT task_results_properties_check CHECK (num_nulls(molecular_weight, logp, tpsa, hbd, hba, rotatable_bonds) IN (0, 6));
  COMMENT ON COLUMN results.task_results.molecular_weight IS 'Confidential: of the molecule, as frozen with the job''s input, g/mol; null where catalog did not say';
  COMMENT ON COLUMN results.task_results.logp IS 'Confidential: of the molecule, as frozen with the job''s input; Crippen''s estimate';
  COMMENT ON COLUMN results.task_results.tpsa IS 'Confidential: of the molecule, as frozen with the job''s input, Å²';
  COMMENT ON COLUMN results.task_results.hbd IS 'Confidential: of the molecule, as frozen with the job''s input: hydrogen bond donors';
  COMMENT ON COLUMN results.task_results.hba IS 'Confidential: of the molecule, as frozen with the job''s input: hydrogen bond acceptors';
  COMMENT ON COLUMN results.task_results.rotatable_bonds IS 'Confidential: of the molecule, as frozen with the job''s input';`,

  down: `
  ALTER TABLE results.task_results
    DROP CONSTRAINT task_results_properties_check,
    DROP COLUMN rotatable_bonds,
    DROP COLUMN hba,
    DROP COLUMN hbd,
    DROP COLUMN tpsa,
    DROP COLUMN logp,
    DROP COLUMN molecular_weight;
  ALTER TABLE results.task_executions DROP CONSTRAINT task_executions_batches_check, DROP COLUMN batches;`,
});
