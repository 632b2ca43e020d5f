import { defineMigration, rlsSql } from '@mad/postgres';

/** What workers can do, and the pipelines made of it. The database itself refuses to change a published version. */
export const Pipelines = defineMigration(import.meta.url, {
  up: `
CREATE TABLE catalog.task_definitions (
  task_definition_id uuid NOT NULL DEFAULT gen_random_uuid(),
  org_id uuid,
  task_id text NOT NULL,
  version text NOT NULL,
  task_type catalog.task_type NOT NULL,
  engine text NOT NULL,
  metadata jsonb NOT NULL,
  interface_spec jsonb NOT NULL,
  service_config jsonb NOT NULL,
  deterministic boolean NOT NULL,
  cache_version integer NOT NULL,
  is_active boolean NOT NULL DEFAULT true,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT task_definitions_pkey PRIMARY KEY (task_definition_id),
  CONSTRAINT task_definitions_org_id_task_id_version_key UNIQUE NULLS NOT DISTINCT (org_id, task_id, version),
  CONSTRAINT task_definitions_task_id_check CHECK (task_id ~ '^[a-z][a-z0-9_]*([.][a-z][a-z0-9_]*)+$' AND char_length(task_id) <= 127),
  CONSTRAINT task_definitions_version_check CHECK (version ~ '^[1-9][0-9]{0,5}$'),
  CONSTRAINT task_definitions_engine_check CHECK (engine ~ '^[a-z][a-z0-9_-]*@[0-9A-Za-z._+-]+$' AND char_length(engine) <= 127),
  CONSTRAINT task_definitions_metadata_check CHECK (jsonb_typeof(metadata) = 'object'),
  CONSTRAINT task_definitions_interface_spec_check
    CHECK (jsonb_typeof(interface_spec) = 'object' AND interface_spec ?& ARRAY['inputs', 'outputs', 'parameters']),
  CONSTRAINT task_definitions_service_config_check CHECK (jsonb_typeof(service_config) = 'object'),
  CONSTRAINT task_definitions_cache_version_check CHECK (cache_version > 0)
);
COMMENT ON TABLE catalog.task_definitions IS 'Internal: what a worker can do; without organization those that come with the product. Owner: catalog';
COMMENT ON COLUMN catalog.task_definitions.metadata IS 'Internal: description, unit and direction of the score';
COMMENT ON COLUMN catalog.task_definitions.interface_spec IS 'Internal: types of inputs and outputs, JSON Schema of the parameters';
COMMENT ON COLUMN catalog.task_definitions.service_config IS 'Internal: items per execution, cores, memory in MiB, preparation recipe';
COMMENT ON COLUMN catalog.task_definitions.cache_version IS 'Internal: raised by hand when results change meaning';

CREATE TABLE catalog.pipelines (
  pipeline_id uuid NOT NULL DEFAULT gen_random_uuid(),
  org_id uuid NOT NULL,
  name text NOT NULL,
  description text NOT NULL DEFAULT '',
  latest_version integer NOT NULL DEFAULT 0,
  visibility catalog.visibility NOT NULL DEFAULT 'organization',
  created_by uuid NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT pipelines_pkey PRIMARY KEY (pipeline_id),
  CONSTRAINT pipelines_org_id_pipeline_id_key UNIQUE (org_id, pipeline_id),
  CONSTRAINT pipelines_org_id_name_key UNIQUE (org_id, name),
  CONSTRAINT pipelines_name_check CHECK (char_length(name) BETWEEN 1 AND 255),
  CONSTRAINT pipelines_description_check CHECK (char_length(description) <= 10000),
  CONSTRAINT pipelines_latest_version_check CHECK (latest_version >= 0)
);
COMMENT ON TABLE catalog.pipelines IS 'Named pipelines. Owner: catalog';
COMMENT ON COLUMN catalog.pipelines.name IS 'Confidential: unique in the organization';
COMMENT ON COLUMN catalog.pipelines.description IS 'Confidential: free text';
COMMENT ON COLUMN catalog.pipelines.latest_version IS 'Internal: the newest published version, 0 when none';
COMMENT ON COLUMN catalog.pipelines.visibility IS 'Internal: public ones are readable, and runnable, by every organization';
COMMENT ON COLUMN catalog.pipelines.created_by IS 'PII: the user who created it';

CREATE TABLE catalog.pipeline_versions (
  pipeline_version_id uuid NOT NULL DEFAULT gen_random_uuid(),
  org_id uuid NOT NULL,
  pipeline_id uuid NOT NULL,
  version integer NOT NULL,
  spec jsonb NOT NULL,
  published boolean NOT NULL DEFAULT false,
  published_at timestamptz(3),
  deprecated_at timestamptz(3),
  created_by uuid NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT pipeline_versions_pkey PRIMARY KEY (pipeline_version_id),
  CONSTRAINT pipeline_versions_pipeline_id_version_key UNIQUE (pipeline_id, version),
  CONSTRAINT pipeline_versions_pipeline_id_fkey
    FOREIGN KEY (org_id, pipeline_id) REFERENCES catalog.pipelines (org_id, pipeline_id),
  CONSTRAINT pipeline_versions_version_check CHECK (version > 0),
  CONSTRAINT pipeline_versions_spec_check
    CHECK (jsonb_typeof(spec) = 'object' AND spec ? 'version' AND jsonb_typeof(spec -> 'tasks') IS NOT DISTINCT FROM 'array'),
  CONSTRAINT pipeline_versions_published_check CHECK (published = (published_at IS NOT NULL)),
  CONSTRAINT pipeline_versions_deprecated_at_check CHECK (deprecated_at IS NULL OR published)
);
CREATE INDEX idx_pipeline_versions_spec ON catalog.pipeline_versions USING gin (spec jsonb_path_ops);
COMMENT ON TABLE catalog.pipeline_versions IS 'Versions of pipelines, immutable once published. Owner: catalog';
COMMENT ON COLUMN catalog.pipeline_versions.spec IS 'Confidential: the tasks and how they hang together';
COMMENT ON COLUMN catalog.pipeline_versions.created_by IS 'PII: the user who created it';

CREATE FUNCTION catalog.refuse_change_of_published_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE wanted catalog.pipeline_versions := NEW;
BEGIN
  -- Deprecating is no change of what it does.
  wanted.deprecated_at := OLD.deprecated_at;
  IF wanted IS DISTINCT FROM OLD THEN
    RAISE EXCEPTION 'a published pipeline version does not change' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse_change_of_published_version BEFORE UPDATE ON catalog.pipeline_versions
  FOR EACH ROW WHEN (OLD.published) EXECUTE FUNCTION catalog.refuse_change_of_published_version();
REVOKE DELETE, TRUNCATE ON catalog.pipeline_versions FROM mad_catalog, mad_catalog_system;

CREATE TABLE catalog.pipeline_templates (
  pipeline_template_id uuid NOT NULL DEFAULT gen_random_uuid(),
  name text NOT NULL,
  description text NOT NULL,
  category text NOT NULL,
  workflow_definition jsonb NOT NULL,
  default_parameters jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT pipeline_templates_pkey PRIMARY KEY (pipeline_template_id),
  CONSTRAINT pipeline_templates_name_key UNIQUE (name),
  CONSTRAINT pipeline_templates_name_check CHECK (char_length(name) BETWEEN 1 AND 255),
  CONSTRAINT pipeline_templates_category_check CHECK (category ~ '^[a-z][a-z0-9_-]{0,62}$'),
  CONSTRAINT pipeline_templates_workflow_definition_check CHECK (jsonb_typeof(workflow_definition) = 'object'),
  CONSTRAINT pipeline_templates_default_parameters_check CHECK (jsonb_typeof(default_parameters) = 'object')
);
COMMENT ON TABLE catalog.pipeline_templates IS 'Internal: pipelines to start from, the same for everybody. Owner: catalog';
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON catalog.pipeline_templates FROM mad_catalog;

${rlsSql({ schema: 'catalog', table: 'task_definitions', systemMay: true, builtInRows: true })}
${rlsSql({ schema: 'catalog', table: 'pipelines', systemMay: false, readAlso: { public: `visibility = 'public'` } })}
${rlsSql({
  schema: 'catalog',
  table: 'pipeline_versions',
  systemMay: false,
  readAlso: {
    public: `published AND EXISTS (SELECT 1 FROM catalog.pipelines p
      WHERE p.pipeline_id = pipeline_versions.pipeline_id AND p.visibility = 'public')`,
  },
})}
`,
  down: `
DROP TABLE catalog.pipeline_templates;
DROP TABLE catalog.pipeline_versions;
DROP TABLE catalog.pipelines;
DROP TABLE catalog.task_definitions;
DROP FUNCTION catalog.refuse_change_of_published_version();
`,
});
