import { defineMigration, rlsSql } from '@mad/postgres';

/** Ordered sets of molecules: libraries and jobs' inputs. The database itself refuses to change a sealed one. */
export const MoleculeSets = defineMigration(import.meta.url, {
  up: `
CREATE TABLE catalog.molecule_sets (
  org_id uuid NOT NULL,
  molecule_set_id uuid NOT NULL DEFAULT gen_random_uuid(),
  name text NOT NULL DEFAULT '',
  size integer NOT NULL DEFAULT 0,
  sealed_at timestamptz(3),
  created_by uuid NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT molecule_sets_pkey PRIMARY KEY (org_id, molecule_set_id),
  CONSTRAINT molecule_sets_name_check CHECK (char_length(name) <= 255),
  CONSTRAINT molecule_sets_size_check CHECK (size >= 0)
);
CREATE UNIQUE INDEX molecule_sets_org_id_name_key ON catalog.molecule_sets (org_id, name) WHERE name <> '';
COMMENT ON TABLE catalog.molecule_sets IS 'Ordered sets of molecules, immutable once sealed. Owner: catalog';
COMMENT ON COLUMN catalog.molecule_sets.name IS 'Confidential: the name of a library; empty for a job''s input';
COMMENT ON COLUMN catalog.molecule_sets.size IS 'Confidential: how many members it has';
COMMENT ON COLUMN catalog.molecule_sets.created_by IS 'PII: the user who created it';

CREATE TABLE catalog.molecule_set_members (
  org_id uuid NOT NULL,
  molecule_set_id uuid NOT NULL,
  item_no integer NOT NULL,
  molecule_id uuid NOT NULL,
  CONSTRAINT molecule_set_members_pkey PRIMARY KEY (org_id, molecule_set_id, item_no),
  CONSTRAINT molecule_set_members_molecule_set_id_fkey
    FOREIGN KEY (org_id, molecule_set_id) REFERENCES catalog.molecule_sets (org_id, molecule_set_id),
  CONSTRAINT molecule_set_members_molecule_id_fkey
    FOREIGN KEY (org_id, molecule_id) REFERENCES catalog.molecules (org_id, molecule_id),
  CONSTRAINT molecule_set_members_item_no_check CHECK (item_no > 0)
);
COMMENT ON TABLE catalog.molecule_set_members IS 'The molecules of a set in their order; one molecule may have several places. Owner: catalog';

${rlsSql({ schema: 'catalog', table: 'molecule_sets', systemMay: false })}
${rlsSql({ schema: 'catalog', table: 'molecule_set_members', systemMay: false })}

-- Waits for a sealing under way (FOR SHARE) and so never adds to a set that is sealed by the time of the commit.
CREATE FUNCTION catalog.refuse_members_of_sealed_set() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE sealed timestamptz;
BEGIN
  FOR sealed IN
    SELECT s.sealed_at FROM catalog.molecule_sets s
    WHERE (s.org_id, s.molecule_set_id) IN (SELECT DISTINCT a.org_id, a.molecule_set_id FROM added a) FOR SHARE
  LOOP
    IF sealed IS NOT NULL THEN
      RAISE EXCEPTION 'a sealed molecule set does not change' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
  END LOOP;
  RETURN NULL;
END $$;
CREATE TRIGGER refuse_members_of_sealed_set AFTER INSERT ON catalog.molecule_set_members
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION catalog.refuse_members_of_sealed_set();

CREATE FUNCTION catalog.refuse_change_of_sealed_set() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a sealed molecule set does not change' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER refuse_change_of_sealed_set BEFORE UPDATE ON catalog.molecule_sets
  FOR EACH ROW WHEN (OLD.sealed_at IS NOT NULL) EXECUTE FUNCTION catalog.refuse_change_of_sealed_set();
REVOKE UPDATE, DELETE, TRUNCATE ON catalog.molecule_set_members FROM mad_catalog, mad_catalog_system;
REVOKE DELETE, TRUNCATE ON catalog.molecule_sets FROM mad_catalog, mad_catalog_system;
`,
  down: `
DROP TABLE catalog.molecule_set_members;
DROP TABLE catalog.molecule_sets;
DROP FUNCTION catalog.refuse_change_of_sealed_set();
DROP FUNCTION catalog.refuse_members_of_sealed_set();
`,
});
