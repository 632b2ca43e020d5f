import { defineMigration } from '@mad/postgres';

/** The closed sets and value types that several tables share. */
export const Types = defineMigration(import.meta.url, {
  up: `
CREATE TYPE catalog.visibility AS ENUM ('private', 'organization', 'public');
CREATE TYPE catalog.job_status AS ENUM ('pending', 'queued', 'running', 'completed', 'failed', 'cancelled');
CREATE TYPE catalog.task_type AS ENUM ('docking', 'analysis', 'preprocessing', 'postprocessing', 'validation');
CREATE TYPE catalog.molecule_format AS ENUM ('sdf', 'pdb', 'mol2', 'smiles', 'pdbqt');
CREATE DOMAIN catalog.smiles_string AS text
  CONSTRAINT smiles_string_length_check CHECK (char_length(VALUE) BETWEEN 1 AND 600)
  CONSTRAINT smiles_string_characters_check CHECK (VALUE COLLATE "C" ~ '^[!-~]*$');
COMMENT ON DOMAIN catalog.smiles_string IS 'A SMILES: printable ASCII without blanks. RDKit stops reading at anything else without a word';
CREATE DOMAIN catalog.molecular_weight AS numeric(10, 4)
  CONSTRAINT molecular_weight_check CHECK (VALUE > 0 AND VALUE < 10000);
COMMENT ON DOMAIN catalog.molecular_weight IS 'Average molecular weight in g/mol';
`,
  down: `
DROP DOMAIN catalog.molecular_weight;
DROP DOMAIN catalog.smiles_string;
DROP TYPE catalog.molecule_format;
DROP TYPE catalog.task_type;
DROP TYPE catalog.job_status;
DROP TYPE catalog.visibility;
`,
});
