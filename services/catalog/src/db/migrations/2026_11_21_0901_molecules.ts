import { defineMigration, rlsSql } from '@mad/postgres';

const PARTITIONS = 8;

const partitions = Array.from(
  { length: PARTITIONS },
  (_, remainder) =>
    `CREATE TABLE catalog.molecules_p${remainder} PARTITION OF catalog.molecules
       FOR VALUES WITH (MODULUS ${PARTITIONS}, REMAINDER ${remainder});`,
).join('\n');

/** Molecules, and what each organization uses of its quotas. */
export const Molecules = defineMigration(import.meta.url, {
  up: `
CREATE TABLE catalog.molecules (
  org_id uuid NOT NULL,
  molecule_id uuid NOT NULL DEFAULT gen_random_uuid(),
  name text NOT NULL,
  synonyms text[] NOT NULL DEFAULT '{}',
  description text NOT NULL DEFAULT '',
  smiles catalog.smiles_string NOT NULL,
  canonical_smiles catalog.smiles_string NOT NULL,
  inchikey text,
  formula text NOT NULL,
  molecular_weight catalog.molecular_weight NOT NULL,
  format catalog.molecule_format NOT NULL DEFAULT 'smiles',
  uri text,
  size_bytes bigint,
  checksum text,
  properties jsonb NOT NULL,
  fingerprint bytea NOT NULL,
  normalizer text NOT NULL,
  search tsvector NOT NULL,
  created_by uuid NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT molecules_pkey PRIMARY KEY (org_id, molecule_id),
  CONSTRAINT molecules_org_id_canonical_smiles_key UNIQUE (org_id, canonical_smiles),
  CONSTRAINT molecules_name_check CHECK (char_length(name) BETWEEN 1 AND 255),
  CONSTRAINT molecules_synonyms_check CHECK (cardinality(synonyms) <= 100 AND array_position(synonyms, NULL) IS NULL),
  CONSTRAINT molecules_description_check CHECK (char_length(description) <= 10000),
  CONSTRAINT molecules_inchikey_check CHECK (inchikey ~ '^[A-Z]{14}-[A-Z]{10}-[A-Z]$'),
  CONSTRAINT molecules_formula_check CHECK (char_length(formula) BETWEEN 1 AND 255),
  CONSTRAINT molecules_uri_check CHECK (char_length(uri) BETWEEN 1 AND 1024),
  CONSTRAINT molecules_size_bytes_check CHECK (size_bytes > 0),
  CONSTRAINT molecules_checksum_check CHECK (checksum ~ '^[0-9a-f]{64}$'),
  CONSTRAINT valid_properties CHECK (jsonb_typeof(properties) = 'object'),
  CONSTRAINT molecules_fingerprint_check CHECK (octet_length(fingerprint) = 256),
  CONSTRAINT molecules_normalizer_check CHECK (char_length(normalizer) BETWEEN 1 AND 63)
) PARTITION BY HASH (org_id);
${partitions}
CREATE INDEX idx_molecules_org_name ON catalog.molecules (org_id, name);
CREATE INDEX idx_molecules_org_inchikey ON catalog.molecules (org_id, inchikey);
CREATE INDEX idx_molecules_search ON catalog.molecules USING gin (search);
CREATE INDEX idx_molecules_properties ON catalog.molecules USING gin (properties jsonb_path_ops);

CREATE FUNCTION catalog.index_molecule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.search := pg_catalog.to_tsvector('pg_catalog.simple'::pg_catalog.regconfig,
    NEW.name || ' ' || pg_catalog.array_to_string(NEW.synonyms, ' ') || ' ' || NEW.description);
  RETURN NEW;
END $$;
CREATE TRIGGER index_molecule BEFORE INSERT OR UPDATE OF name, synonyms, description ON catalog.molecules
  FOR EACH ROW EXECUTE FUNCTION catalog.index_molecule();

COMMENT ON TABLE catalog.molecules IS 'Registered molecules, one per canonical form and organization. Owner: catalog';
COMMENT ON COLUMN catalog.molecules.name IS 'Confidential: the name it was first registered under';
COMMENT ON COLUMN catalog.molecules.synonyms IS 'Confidential: other names it was registered under';
COMMENT ON COLUMN catalog.molecules.description IS 'Confidential: free text';
COMMENT ON COLUMN catalog.molecules.smiles IS 'Confidential: the structure as first given';
COMMENT ON COLUMN catalog.molecules.canonical_smiles IS 'Confidential: RDKit canonical isomeric SMILES, the identity of the molecule';
COMMENT ON COLUMN catalog.molecules.inchikey IS 'Confidential: search key, null where InChI cannot describe the molecule; not an identity';
COMMENT ON COLUMN catalog.molecules.uri IS 'Confidential: the file it came from, where one is kept';
COMMENT ON COLUMN catalog.molecules.size_bytes IS 'Internal: size of that file in bytes';
COMMENT ON COLUMN catalog.molecules.checksum IS 'Internal: sha256 of that file, hex';
COMMENT ON COLUMN catalog.molecules.properties IS 'Confidential: computed properties by name';
COMMENT ON COLUMN catalog.molecules.fingerprint IS 'Confidential: Morgan fingerprint, radius 2, 2,048 bits';
COMMENT ON COLUMN catalog.molecules.normalizer IS 'Internal: what computed the canonical form, with its version';
COMMENT ON COLUMN catalog.molecules.search IS 'Confidential: words of the names and the description, kept by the trigger index_molecule';
COMMENT ON COLUMN catalog.molecules.created_by IS 'PII: the user who registered it';

CREATE TABLE catalog.org_usage (
  org_id uuid NOT NULL,
  molecules bigint NOT NULL DEFAULT 0,
  artifact_bytes bigint NOT NULL DEFAULT 0,
  CONSTRAINT org_usage_pkey PRIMARY KEY (org_id),
  CONSTRAINT org_usage_molecules_check CHECK (molecules >= 0),
  CONSTRAINT org_usage_artifact_bytes_check CHECK (artifact_bytes >= 0)
);
COMMENT ON TABLE catalog.org_usage IS 'Internal: what each organization uses of its quotas, counted in the transaction that uses it. Owner: catalog';

${rlsSql({ schema: 'catalog', table: 'molecules', systemMay: false })}
${rlsSql({ schema: 'catalog', table: 'org_usage', systemMay: false })}
`,
  down: `
DROP TABLE catalog.org_usage;
DROP TABLE catalog.molecules;
DROP FUNCTION catalog.index_molecule();
`,
});
