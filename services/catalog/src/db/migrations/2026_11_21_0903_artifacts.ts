import { defineMigration, rlsSql } from '@mad/postgres';

/** The registry of immutable objects. */
export const Artifacts = defineMigration(import.meta.url, {
  up: `
CREATE TABLE catalog.artifacts (
  org_id uuid NOT NULL,
  artifact_id uuid NOT NULL DEFAULT gen_random_uuid(),
  purpose text NOT NULL,
  name text NOT NULL,
  content_type text NOT NULL,
  uri text NOT NULL,
  size_bytes bigint NOT NULL,
  sha256 text NOT NULL,
  created_by uuid NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT artifacts_pkey PRIMARY KEY (org_id, artifact_id),
  CONSTRAINT artifacts_org_id_purpose_sha256_key UNIQUE (org_id, purpose, sha256),
  CONSTRAINT artifacts_purpose_check CHECK (purpose IN ('receptor', 'other')),
  CONSTRAINT artifacts_name_check CHECK (char_length(name) BETWEEN 1 AND 255),
  CONSTRAINT artifacts_content_type_check CHECK (char_length(content_type) BETWEEN 1 AND 255),
  CONSTRAINT artifacts_uri_check CHECK (char_length(uri) BETWEEN 1 AND 1024),
  CONSTRAINT artifacts_size_bytes_check CHECK (size_bytes > 0),
  CONSTRAINT artifacts_sha256_check CHECK (sha256 ~ '^[0-9a-f]{64}$')
);
COMMENT ON TABLE catalog.artifacts IS 'Immutable objects in object storage. Owner: catalog';
COMMENT ON COLUMN catalog.artifacts.name IS 'Confidential: the name it was stored under';
COMMENT ON COLUMN catalog.artifacts.uri IS 'Internal: its key in the object store';
COMMENT ON COLUMN catalog.artifacts.sha256 IS 'Confidential: sha256 of the content as kept, hex';
COMMENT ON COLUMN catalog.artifacts.created_by IS 'PII: the user who stored it';

${rlsSql({ schema: 'catalog', table: 'artifacts', systemMay: false })}
REVOKE UPDATE, DELETE, TRUNCATE ON catalog.artifacts FROM mad_catalog, mad_catalog_system;
`,
  down: `
DROP TABLE catalog.artifacts;
`,
});
