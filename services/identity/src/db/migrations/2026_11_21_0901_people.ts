import { defineMigration, rlsSql } from '@mad/postgres';

/** A person is nobody's row: it is seen through a membership of the current organization. */
const USERS_RLS = `
ALTER TABLE identity.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity.users FORCE ROW LEVEL SECURITY;
CREATE POLICY users_owner ON identity.users TO mad_identity_owner USING (true) WITH CHECK (true);
CREATE POLICY users_system ON identity.users TO mad_identity_system USING (true) WITH CHECK (true);
CREATE POLICY users_members ON identity.users FOR SELECT TO mad_identity USING (EXISTS (
  SELECT FROM identity.memberships m WHERE m.user_id = users.user_id
     AND m.org_id = nullif(current_setting('app.current_org_id', true), '')::uuid));
REVOKE INSERT, UPDATE, DELETE ON identity.users FROM mad_identity;
`;

/** A role's permissions are read where the role is, and written where the role is the organization's own. */
const ROLE_PERMISSIONS_RLS = `
ALTER TABLE identity.role_permissions ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity.role_permissions FORCE ROW LEVEL SECURITY;
CREATE POLICY role_permissions_owner ON identity.role_permissions TO mad_identity_owner
  USING (true) WITH CHECK (true);
CREATE POLICY role_permissions_system ON identity.role_permissions TO mad_identity_system
  USING (true) WITH CHECK (true);
CREATE POLICY role_permissions_read ON identity.role_permissions FOR SELECT TO mad_identity USING (EXISTS (
  SELECT FROM identity.roles r WHERE r.role_id = role_permissions.role_id
     AND (r.org_id IS NULL OR r.org_id = nullif(current_setting('app.current_org_id', true), '')::uuid)));
CREATE POLICY role_permissions_org ON identity.role_permissions TO mad_identity
  USING (EXISTS (SELECT FROM identity.roles r WHERE r.role_id = role_permissions.role_id
     AND r.org_id = nullif(current_setting('app.current_org_id', true), '')::uuid))
  WITH CHECK (EXISTS (SELECT FROM identity.roles r WHERE r.role_id = role_permissions.role_id
     AND r.org_id = nullif(current_setting('app.current_org_id', true), '')::uuid));
`;

/**
 * An organization adds people by address, and an address may have an account already: the one narrow door through
 * which the app login reaches accounts it cannot see. It answers the id and nothing else.
 */
const ENSURE_ACCOUNT = `
CREATE FUNCTION identity.ensure_account(p_user_id uuid, p_email citext, p_display_name text, p_hashed_password text)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = identity, public, pg_temp AS $$
DECLARE found uuid;
BEGIN
  INSERT INTO identity.users (user_id, email, display_name, hashed_password)
  VALUES (p_user_id, p_email, p_display_name, p_hashed_password) ON CONFLICT (email) DO NOTHING;
  SELECT u.user_id INTO found FROM identity.users u WHERE u.email = p_email;
  RETURN found;
END $$;
REVOKE ALL ON FUNCTION identity.ensure_account(uuid, citext, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION identity.ensure_account(uuid, citext, text, text) TO mad_identity;
COMMENT ON FUNCTION identity.ensure_account(uuid, citext, text, text)
  IS 'Returns the account of an address, made when it is new';
`;

/** Accounts, memberships, roles. */
export const People = defineMigration(import.meta.url, {
  up: `
CREATE TYPE identity.user_role AS ENUM ('user', 'admin', 'super_admin');

CREATE TABLE identity.users (
  user_id uuid NOT NULL DEFAULT gen_random_uuid(),
  email citext NOT NULL,
  hashed_password text,
  display_name text NOT NULL DEFAULT '',
  role identity.user_role NOT NULL DEFAULT 'user',
  enabled boolean NOT NULL DEFAULT true,
  email_verified boolean NOT NULL DEFAULT false,
  failed_logins integer NOT NULL DEFAULT 0,
  locked_until timestamptz(3),
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  updated_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT users_pkey PRIMARY KEY (user_id),
  CONSTRAINT users_email_key UNIQUE (email),
  CONSTRAINT users_email_check CHECK (char_length(email) BETWEEN 3 AND 254 AND position('@' IN email) > 1),
  CONSTRAINT users_hashed_password_check CHECK (hashed_password LIKE '$argon2id$%'),
  CONSTRAINT users_display_name_check CHECK (char_length(display_name) <= 255),
  CONSTRAINT users_failed_logins_check CHECK (failed_logins >= 0),
  CONSTRAINT users_version_check CHECK (version > 0)
);
COMMENT ON TABLE identity.users IS 'People with an account. Owner: identity';
COMMENT ON COLUMN identity.users.email IS 'PII: the person''s e-mail address';
COMMENT ON COLUMN identity.users.hashed_password IS 'Confidential: argon2id, null when the person cannot sign in by password';
COMMENT ON COLUMN identity.users.display_name IS 'PII: the person''s name as shown to others';
COMMENT ON COLUMN identity.users.failed_logins IS 'Internal: refused sign-ins since the last good one';
COMMENT ON COLUMN identity.users.locked_until IS 'Internal: no sign-in is tried before this time';

CREATE TABLE identity.memberships (
  user_id uuid NOT NULL,
  org_id uuid NOT NULL,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT memberships_pkey PRIMARY KEY (user_id, org_id),
  CONSTRAINT memberships_user_id_fkey FOREIGN KEY (user_id) REFERENCES identity.users (user_id),
  CONSTRAINT memberships_org_id_fkey FOREIGN KEY (org_id) REFERENCES identity.organizations (org_id),
  CONSTRAINT memberships_version_check CHECK (version > 0)
);
CREATE INDEX idx_memberships_org_created ON identity.memberships (org_id, created_at, user_id);
COMMENT ON TABLE identity.memberships IS 'Who belongs to which organization. Owner: identity';
COMMENT ON COLUMN identity.memberships.version IS 'Internal: grows with every change of roles, the tokens'' "ver"';

CREATE TABLE identity.roles (
  role_id uuid NOT NULL DEFAULT gen_random_uuid(),
  org_id uuid,
  name text NOT NULL,
  created_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT roles_pkey PRIMARY KEY (role_id),
  CONSTRAINT roles_org_id_name_key UNIQUE NULLS NOT DISTINCT (org_id, name),
  CONSTRAINT roles_org_id_fkey FOREIGN KEY (org_id) REFERENCES identity.organizations (org_id),
  CONSTRAINT roles_name_check CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$')
);
COMMENT ON TABLE identity.roles IS 'Named lists of permissions; org_id null for built-in ones. Owner: identity';

CREATE TABLE identity.role_permissions (
  role_id uuid NOT NULL,
  permission text NOT NULL,
  CONSTRAINT role_permissions_pkey PRIMARY KEY (role_id, permission),
  CONSTRAINT role_permissions_role_id_fkey FOREIGN KEY (role_id) REFERENCES identity.roles (role_id) ON DELETE CASCADE,
  CONSTRAINT role_permissions_permission_check CHECK (permission ~ '^[a-z_]+([.][a-z_]+)+$')
);
COMMENT ON TABLE identity.role_permissions IS 'What a role allows. Owner: identity';

CREATE TABLE identity.membership_roles (
  user_id uuid NOT NULL,
  org_id uuid NOT NULL,
  role_id uuid NOT NULL,
  CONSTRAINT membership_roles_pkey PRIMARY KEY (user_id, org_id, role_id),
  CONSTRAINT membership_roles_membership_fkey FOREIGN KEY (user_id, org_id)
    REFERENCES identity.memberships (user_id, org_id) ON DELETE CASCADE,
  CONSTRAINT membership_roles_role_id_fkey FOREIGN KEY (role_id) REFERENCES identity.roles (role_id)
);
CREATE INDEX idx_membership_roles_role ON identity.membership_roles (role_id);
COMMENT ON TABLE identity.membership_roles IS 'The roles of a member. Owner: identity';

${rlsSql({ schema: 'identity', table: 'memberships', systemMay: true })}
${rlsSql({ schema: 'identity', table: 'membership_roles', systemMay: true })}
${rlsSql({ schema: 'identity', table: 'roles', systemMay: true, builtInRows: true })}
${USERS_RLS}
${ROLE_PERMISSIONS_RLS}
${ENSURE_ACCOUNT}
`,
  down: `
DROP FUNCTION identity.ensure_account(uuid, citext, text, text);
DROP TABLE identity.membership_roles;
DROP TABLE identity.role_permissions;
DROP TABLE identity.roles;
DROP POLICY users_members ON identity.users;
DROP TABLE identity.memberships;
DROP TABLE identity.users;
DROP TYPE identity.user_role;
`,
});
