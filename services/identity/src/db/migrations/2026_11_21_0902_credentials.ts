import { defineMigration, rlsSql } from '@mad/postgres';

/** Sessions, API tokens, and the keys that sign access tokens. */
export const Credentials = defineMigration(import.meta.url, {
  up: `
CREATE TABLE identity.user_sessions (
  session_id uuid NOT NULL DEFAULT gen_random_uuid(),
  user_id uuid NOT NULL,
  org_id uuid,
  refresh_digest bytea NOT NULL,
  family uuid NOT NULL,
  device text NOT NULL DEFAULT '',
  address text NOT NULL DEFAULT '',
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  last_seen_at timestamptz(3) NOT NULL DEFAULT now(),
  used_at timestamptz(3),
  revoked_at timestamptz(3),
  expires_at timestamptz(3) NOT NULL,
  CONSTRAINT user_sessions_pkey PRIMARY KEY (session_id),
  CONSTRAINT user_sessions_refresh_digest_key UNIQUE (refresh_digest),
  CONSTRAINT user_sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES identity.users (user_id),
  CONSTRAINT user_sessions_org_id_fkey FOREIGN KEY (org_id) REFERENCES identity.organizations (org_id),
  CONSTRAINT user_sessions_refresh_digest_check CHECK (octet_length(refresh_digest) = 32),
  CONSTRAINT user_sessions_device_check CHECK (char_length(device) <= 255),
  CONSTRAINT user_sessions_address_check CHECK (char_length(address) <= 64),
  CONSTRAINT user_sessions_expires_at_check CHECK (expires_at > created_at)
);
CREATE INDEX idx_user_sessions_family ON identity.user_sessions (family);
CREATE INDEX idx_user_sessions_org_user ON identity.user_sessions (org_id, user_id);
CREATE INDEX idx_user_sessions_expires ON identity.user_sessions (expires_at);
COMMENT ON TABLE identity.user_sessions
  IS 'One row per refresh token; a family is one sign-in; org_id null for the platform. Owner: identity';
COMMENT ON COLUMN identity.user_sessions.refresh_digest IS 'Confidential: HMAC-SHA256 of the refresh token';
COMMENT ON COLUMN identity.user_sessions.device IS 'PII: what the person calls the device';
COMMENT ON COLUMN identity.user_sessions.address IS 'PII: network address at sign-in, as the edge reports it';
COMMENT ON COLUMN identity.user_sessions.used_at IS 'Internal: when it was exchanged; a second exchange ends the family';

CREATE TABLE identity.tokens (
  token_id uuid NOT NULL DEFAULT gen_random_uuid(),
  user_id uuid NOT NULL,
  org_id uuid NOT NULL,
  kind text NOT NULL DEFAULT 'api',
  name text NOT NULL,
  prefix text NOT NULL,
  digest bytea NOT NULL,
  scopes text[] NOT NULL DEFAULT '{}',
  expires_at timestamptz(3) NOT NULL,
  revoked boolean NOT NULL DEFAULT false,
  last_used_at timestamptz(3),
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT tokens_pkey PRIMARY KEY (token_id),
  CONSTRAINT tokens_prefix_key UNIQUE (prefix),
  CONSTRAINT tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES identity.users (user_id),
  CONSTRAINT tokens_org_id_fkey FOREIGN KEY (org_id) REFERENCES identity.organizations (org_id),
  CONSTRAINT tokens_kind_check CHECK (kind = 'api'),
  CONSTRAINT tokens_name_check CHECK (char_length(name) BETWEEN 1 AND 255),
  CONSTRAINT tokens_prefix_check CHECK (prefix ~ '^[a-z0-9]{10}$'),
  CONSTRAINT tokens_digest_check CHECK (octet_length(digest) = 32),
  CONSTRAINT tokens_expires_at_check CHECK (expires_at > created_at)
);
CREATE INDEX idx_tokens_org_user ON identity.tokens (org_id, user_id, token_id);
COMMENT ON TABLE identity.tokens IS 'API tokens of a member, without their secrets. Owner: identity';
COMMENT ON COLUMN identity.tokens.digest IS 'Confidential: HMAC-SHA256 of the secret';
COMMENT ON COLUMN identity.tokens.scopes IS 'Internal: permissions it is limited to, empty for all of the person''s';
COMMENT ON COLUMN identity.tokens.last_used_at IS 'Internal: to the minute';

CREATE TABLE identity.signing_keys (
  kid text NOT NULL,
  alg text NOT NULL,
  public_key jsonb NOT NULL,
  private_key bytea NOT NULL,
  state text NOT NULL,
  not_before timestamptz(3) NOT NULL,
  retire_at timestamptz(3),
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT signing_keys_pkey PRIMARY KEY (kid),
  CONSTRAINT signing_keys_alg_check CHECK (alg = 'ES256'),
  CONSTRAINT signing_keys_public_key_check CHECK (jsonb_typeof(public_key) = 'object' AND NOT public_key ? 'd'),
  CONSTRAINT signing_keys_state_check CHECK (state IN ('active', 'retiring')),
  CONSTRAINT signing_keys_retire_at_check CHECK ((state = 'retiring') = (retire_at IS NOT NULL))
);
COMMENT ON TABLE identity.signing_keys IS 'Keys of access tokens; a retiring key still verifies. Owner: identity';
COMMENT ON COLUMN identity.signing_keys.private_key IS 'Confidential: the private JWK, AES-256-GCM under the master key, kid as AAD';
REVOKE ALL ON identity.signing_keys FROM mad_identity;

${rlsSql({ schema: 'identity', table: 'user_sessions', systemMay: true })}
${rlsSql({ schema: 'identity', table: 'tokens', systemMay: true })}
`,
  down: `
DROP TABLE identity.signing_keys;
DROP TABLE identity.tokens;
DROP TABLE identity.user_sessions;
`,
});
