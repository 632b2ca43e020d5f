import { defineMigration, rlsSql } from '@mad/postgres';

/** The organizations and their settings. */
export const Organizations = defineMigration(import.meta.url, {
  up: `
CREATE TABLE identity.organizations (
  org_id uuid NOT NULL DEFAULT gen_random_uuid(),
  name text NOT NULL,
  slug text NOT NULL,
  status text NOT NULL DEFAULT 'provisioning',
  region text NOT NULL,
  quotas jsonb NOT NULL,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT organizations_pkey PRIMARY KEY (org_id),
  CONSTRAINT organizations_name_key UNIQUE (name),
  CONSTRAINT organizations_slug_key UNIQUE (slug),
  CONSTRAINT organizations_name_check CHECK (char_length(name) BETWEEN 1 AND 255),
  CONSTRAINT organizations_slug_check CHECK (slug ~ '^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$'),
  CONSTRAINT organizations_status_check
    CHECK (status IN ('provisioning', 'active', 'suspended', 'read_only', 'erasing', 'erased')),
  CONSTRAINT organizations_region_check CHECK (region ~ '^[a-z][a-z0-9-]{0,62}$'),
  CONSTRAINT organizations_quotas_check CHECK (jsonb_typeof(quotas) = 'object'),
  CONSTRAINT organizations_version_check CHECK (version > 0)
);
COMMENT ON TABLE identity.organizations IS 'Customers: people, roles, quotas, settings. Owner: identity';
COMMENT ON COLUMN identity.organizations.name IS 'Confidential: the customer''s name';
COMMENT ON COLUMN identity.organizations.slug IS 'Confidential: the customer''s DNS label';
COMMENT ON COLUMN identity.organizations.quotas IS 'Internal: what the organization may use';
COMMENT ON COLUMN identity.organizations.version IS 'Internal: grows with every update, shown as etag';

CREATE TABLE identity.org_settings (
  org_id uuid NOT NULL,
  storage_bucket text,
  storage_prefix text NOT NULL,
  logs_backend text NOT NULL DEFAULT 'objects',
  retention jsonb NOT NULL DEFAULT '{}',
  config jsonb NOT NULL DEFAULT '{}',
  version integer NOT NULL DEFAULT 1,
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT org_settings_pkey PRIMARY KEY (org_id),
  CONSTRAINT org_settings_org_id_fkey FOREIGN KEY (org_id) REFERENCES identity.organizations (org_id),
  CONSTRAINT org_settings_storage_prefix_check CHECK (char_length(storage_prefix) BETWEEN 1 AND 255),
  CONSTRAINT org_settings_logs_backend_check CHECK (logs_backend IN ('objects', 'loki')),
  CONSTRAINT org_settings_retention_check CHECK (jsonb_typeof(retention) = 'object'),
  CONSTRAINT org_settings_config_check CHECK (jsonb_typeof(config) = 'object'),
  CONSTRAINT org_settings_version_check CHECK (version > 0)
);
COMMENT ON TABLE identity.org_settings IS 'Settings of an organization. Owner: identity';
COMMENT ON COLUMN identity.org_settings.storage_bucket IS 'Internal: bucket of its objects, null for the installation''s';
COMMENT ON COLUMN identity.org_settings.storage_prefix IS 'Internal: prefix of its objects';
COMMENT ON COLUMN identity.org_settings.config IS 'Confidential: free settings';

${rlsSql({ schema: 'identity', table: 'organizations', systemMay: true })}
${rlsSql({ schema: 'identity', table: 'org_settings', systemMay: true })}
`,
  down: `
DROP TABLE identity.org_settings;
DROP TABLE identity.organizations;
`,
});
