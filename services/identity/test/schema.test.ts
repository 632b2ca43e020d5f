import { metadataDatabase, schemaSuite } from '@mad/testing';
import { identityEntities, identityMigrations } from '../src/index.ts';

const ORG = '01900000-0000-7000-8000-000000000001';
const USER = '01900000-0000-7000-8000-000000000002';
const ROLE = '01900000-0000-7000-8000-000000000003';
const NOBODY = '01900000-0000-7000-8000-0000000000ff';

/** Rows that are right, for the others to collide with and refer to. */
const GOOD_ROWS = `
  INSERT INTO organizations (org_id, name, slug, region, quotas) VALUES ('${ORG}', 'Acme', 'acme', 'local', '{}');
  INSERT INTO org_settings (org_id, storage_prefix) VALUES ('${ORG}', 'orgs/acme');
  INSERT INTO users (user_id, email) VALUES ('${USER}', 'ann@acme.test');
  INSERT INTO memberships (user_id, org_id) VALUES ('${USER}', '${ORG}');
  INSERT INTO roles (role_id, org_id, name) VALUES ('${ROLE}', '${ORG}', 'chemist');
  INSERT INTO role_permissions (role_id, permission) VALUES ('${ROLE}', 'jobs.create');
  INSERT INTO membership_roles (user_id, org_id, role_id) VALUES ('${USER}', '${ORG}', '${ROLE}');
  INSERT INTO user_sessions (session_id, user_id, org_id, refresh_digest, family, expires_at)
    VALUES ('${ORG}', '${USER}', '${ORG}', decode(repeat('01', 32), 'hex'), '${ORG}', now() + interval '1 day');
  INSERT INTO tokens (token_id, user_id, org_id, name, prefix, digest, expires_at)
    VALUES ('${ORG}', '${USER}', '${ORG}', 'ci', 'aaaaaaaaaa', decode(repeat('01', 32), 'hex'), now() + interval '1 day');
  INSERT INTO signing_keys (kid, alg, public_key, private_key, state, not_before)
    VALUES ('k1', 'ES256', '{}', '\\x00', 'active', now());
  INSERT INTO audit_chains (org_id, last_hash) VALUES ('${ORG}', decode(repeat('00', 32), 'hex'));
  INSERT INTO audit_logs (audit_id, org_id, seq, actor_kind, action, outcome, ts, prev_hash, hash)
    VALUES ('${ORG}', '${ORG}', 1, 'user', 'a.b', 'ok', now(), decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'));
  INSERT INTO idempotency_keys (org_id, method, request_id, payload_hash, field_hashes, expires_at)
    VALUES ('${ORG}', 'm', '${ORG}', '\\x00', '{}', now());`;

/** An UPDATE of the right row, or an INSERT beside it, that breaks the constraint of that name and no other. */
const BAD_ROWS: Record<string, string> = {
  organizations_pkey: `INSERT INTO organizations (org_id, name, slug, region, quotas) VALUES ('${ORG}', 'B', 'b', 'local', '{}')`,
  organizations_name_key: `INSERT INTO organizations (name, slug, region, quotas) VALUES ('Acme', 'b', 'local', '{}')`,
  organizations_slug_key: `INSERT INTO organizations (name, slug, region, quotas) VALUES ('B', 'acme', 'local', '{}')`,
  organizations_name_check: `UPDATE organizations SET name = ''`,
  organizations_slug_check: `UPDATE organizations SET slug = 'Not a label'`,
  organizations_status_check: `UPDATE organizations SET status = 'gone'`,
  organizations_region_check: `UPDATE organizations SET region = ''`,
  organizations_quotas_check: `UPDATE organizations SET quotas = '[]'`,
  organizations_version_check: `UPDATE organizations SET version = 0`,
  org_settings_pkey: `INSERT INTO org_settings (org_id, storage_prefix) VALUES ('${ORG}', 'x')`,
  org_settings_org_id_fkey: `INSERT INTO org_settings (org_id, storage_prefix) VALUES ('${NOBODY}', 'x')`,
  org_settings_storage_prefix_check: `UPDATE org_settings SET storage_prefix = ''`,
  org_settings_logs_backend_check: `UPDATE org_settings SET logs_backend = 'paper'`,
  org_settings_retention_check: `UPDATE org_settings SET retention = '1'`,
  org_settings_config_check: `UPDATE org_settings SET config = '"x"'`,
  org_settings_version_check: `UPDATE org_settings SET version = -1`,
  users_pkey: `INSERT INTO users (user_id, email) VALUES ('${USER}', 'bob@acme.test')`,
  users_email_key: `INSERT INTO users (email) VALUES ('ANN@acme.test')`,
  users_email_check: `UPDATE users SET email = 'nobody'`,
  users_hashed_password_check: `UPDATE users SET hashed_password = 'plain'`,
  users_display_name_check: `UPDATE users SET display_name = repeat('x', 256)`,
  users_failed_logins_check: `UPDATE users SET failed_logins = -1`,
  users_version_check: `UPDATE users SET version = 0`,
  memberships_pkey: `INSERT INTO memberships (user_id, org_id) VALUES ('${USER}', '${ORG}')`,
  memberships_user_id_fkey: `INSERT INTO memberships (user_id, org_id) VALUES ('${NOBODY}', '${ORG}')`,
  memberships_org_id_fkey: `INSERT INTO memberships (user_id, org_id) VALUES ('${USER}', '${NOBODY}')`,
  memberships_version_check: `UPDATE memberships SET version = 0`,
  membership_roles_pkey: `INSERT INTO membership_roles (user_id, org_id, role_id) VALUES ('${USER}', '${ORG}', '${ROLE}')`,
  membership_roles_membership_fkey: `INSERT INTO membership_roles (user_id, org_id, role_id) VALUES ('${NOBODY}', '${ORG}', '${ROLE}')`,
  membership_roles_role_id_fkey: `INSERT INTO membership_roles (user_id, org_id, role_id) VALUES ('${USER}', '${ORG}', '${NOBODY}')`,
  roles_pkey: `INSERT INTO roles (role_id, org_id, name) VALUES ('${ROLE}', '${ORG}', 'other')`,
  roles_org_id_name_key: `INSERT INTO roles (org_id, name) VALUES (NULL, 'user'), (NULL, 'user')`,
  roles_org_id_fkey: `INSERT INTO roles (org_id, name) VALUES ('${NOBODY}', 'other')`,
  roles_name_check: `UPDATE roles SET name = 'Not Allowed'`,
  role_permissions_pkey: `INSERT INTO role_permissions (role_id, permission) VALUES ('${ROLE}', 'jobs.create')`,
  role_permissions_role_id_fkey: `INSERT INTO role_permissions (role_id, permission) VALUES ('${NOBODY}', 'jobs.create')`,
  role_permissions_permission_check: `UPDATE role_permissions SET permission = 'everything'`,
  user_sessions_pkey: `INSERT INTO user_sessions (session_id, user_id, refresh_digest, family, expires_at) VALUES ('${ORG}', '${USER}', decode(repeat('02', 32), 'hex'), '${ORG}', now() + interval '1 day')`,
  user_sessions_refresh_digest_key: `INSERT INTO user_sessions (user_id, refresh_digest, family, expires_at) VALUES ('${USER}', decode(repeat('01', 32), 'hex'), '${ORG}', now() + interval '1 day')`,
  user_sessions_user_id_fkey: `UPDATE user_sessions SET user_id = '${NOBODY}'`,
  user_sessions_org_id_fkey: `UPDATE user_sessions SET org_id = '${NOBODY}'`,
  user_sessions_refresh_digest_check: `UPDATE user_sessions SET refresh_digest = '\\x00'`,
  user_sessions_device_check: `UPDATE user_sessions SET device = repeat('x', 256)`,
  user_sessions_address_check: `UPDATE user_sessions SET address = repeat('x', 65)`,
  user_sessions_expires_at_check: `UPDATE user_sessions SET expires_at = created_at`,
  tokens_pkey: `INSERT INTO tokens (token_id, user_id, org_id, name, prefix, digest, expires_at) VALUES ('${ORG}', '${USER}', '${ORG}', 'x', 'bbbbbbbbbb', decode(repeat('01', 32), 'hex'), now() + interval '1 day')`,
  tokens_prefix_key: `INSERT INTO tokens (user_id, org_id, name, prefix, digest, expires_at) VALUES ('${USER}', '${ORG}', 'x', 'aaaaaaaaaa', decode(repeat('01', 32), 'hex'), now() + interval '1 day')`,
  tokens_user_id_fkey: `UPDATE tokens SET user_id = '${NOBODY}'`,
  tokens_org_id_fkey: `UPDATE tokens SET org_id = '${NOBODY}'`,
  tokens_kind_check: `UPDATE tokens SET kind = 'other'`,
  tokens_name_check: `UPDATE tokens SET name = ''`,
  tokens_prefix_check: `UPDATE tokens SET prefix = 'short'`,
  tokens_digest_check: `UPDATE tokens SET digest = '\\x00'`,
  tokens_expires_at_check: `UPDATE tokens SET expires_at = created_at - interval '1 s'`,
  signing_keys_pkey: `INSERT INTO signing_keys (kid, alg, public_key, private_key, state, not_before) VALUES ('k1', 'ES256', '{}', '\\x00', 'active', now())`,
  signing_keys_alg_check: `UPDATE signing_keys SET alg = 'none'`,
  signing_keys_public_key_check: `UPDATE signing_keys SET public_key = '{"d": "secret"}'`,
  signing_keys_state_check: `UPDATE signing_keys SET state = 'lost'`,
  signing_keys_retire_at_check: `UPDATE signing_keys SET retire_at = now()`,
  audit_chains_pkey: `INSERT INTO audit_chains (org_id, last_hash) VALUES ('${ORG}', decode(repeat('00', 32), 'hex'))`,
  audit_chains_last_seq_check: `UPDATE audit_chains SET last_seq = -1`,
  audit_chains_last_hash_check: `UPDATE audit_chains SET last_hash = '\\x00'`,
  audit_logs_pkey: `INSERT INTO audit_logs (audit_id, org_id, seq, actor_kind, action, outcome, ts, prev_hash, hash) SELECT '${USER}', org_id, seq, actor_kind, action, outcome, ts, prev_hash, hash FROM audit_logs`,
  audit_logs_org_id_audit_id_key: `INSERT INTO audit_logs (audit_id, org_id, seq, actor_kind, action, outcome, ts, prev_hash, hash) SELECT audit_id, org_id, seq + 1, actor_kind, action, outcome, ts, prev_hash, hash FROM audit_logs`,
  audit_logs_seq_check: `UPDATE audit_logs SET seq = 0`,
  audit_logs_actor_kind_check: `UPDATE audit_logs SET actor_kind = 'ghost'`,
  audit_logs_action_check: `UPDATE audit_logs SET action = ''`,
  audit_logs_entity_type_check: `UPDATE audit_logs SET entity_type = repeat('x', 64)`,
  audit_logs_entity_id_check: `UPDATE audit_logs SET entity_id = repeat('x', 256)`,
  audit_logs_address_check: `UPDATE audit_logs SET address = repeat('x', 65)`,
  audit_logs_outcome_check: `UPDATE audit_logs SET outcome = ''`,
  audit_logs_metadata_check: `UPDATE audit_logs SET metadata = '[]'`,
  audit_logs_prev_hash_check: `UPDATE audit_logs SET prev_hash = '\\x00'`,
  audit_logs_hash_check: `UPDATE audit_logs SET hash = '\\x00'`,
  idempotency_keys_pkey: `INSERT INTO idempotency_keys (org_id, method, request_id, payload_hash, field_hashes, expires_at) VALUES ('${ORG}', 'm', '${ORG}', '\\x00', '{}', now())`,
  idempotency_keys_field_hashes_check: `UPDATE idempotency_keys SET field_hashes = '[]'`,
};

schemaSuite({
  schema: 'identity',
  migrations: identityMigrations,
  entities: identityEntities,
  open: (migrations) => metadataDatabase({ services: [{ schema: 'identity', migrations }] }),
  goodRows: GOOD_ROWS,
  badRows: BAD_ROWS,
  moreObjectsThan: 100,
  personal: [
    'audit_logs.address',
    'audit_logs.user_id',
    'user_sessions.address',
    'user_sessions.device',
    'users.display_name',
    'users.email',
  ],
  confidential: [
    'audit_logs.metadata',
    'idempotency_keys.response',
    'org_settings.config',
    'organizations.name',
    'organizations.slug',
    'signing_keys.private_key',
    'tokens.digest',
    'user_sessions.refresh_digest',
    'users.hashed_password',
  ],
});
