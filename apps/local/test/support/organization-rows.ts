import { randomBytes } from 'node:crypto';
import { uuidv7 } from '@mad/process';

const KEY = `decode(repeat('01', 60), 'hex')`;

/**
 * The SQL that makes an organization in the metadata database: with a member, a role, a pipeline, a sealed set of
 * molecules, a finished job, and a tenant with a backup in the object of this key.
 */
export function organizationRows(orgId: string, operation: string, object: string): string {
  const [user, role, pipeline, set] = Array.from({ length: 4 }, uuidv7);
  return `
    INSERT INTO identity.organizations (org_id, name, slug, status, region, quotas)
      VALUES ('${orgId}', '${orgId}', 's-${orgId}', 'active', 'local', '{}');
    INSERT INTO identity.users (user_id, email, display_name) VALUES ('${user}', 'ann@${user}.test', 'Ann');
    INSERT INTO identity.memberships (user_id, org_id) VALUES ('${user}', '${orgId}');
    INSERT INTO identity.roles (role_id, org_id, name) VALUES ('${role}', '${orgId}', 'chemist');
    INSERT INTO identity.role_permissions (role_id, permission) VALUES ('${role}', 'molecules.read');
    INSERT INTO identity.membership_roles (user_id, org_id, role_id) VALUES ('${user}', '${orgId}', '${role}');
    INSERT INTO identity.tokens (user_id, org_id, name, prefix, digest, expires_at)
      VALUES ('${user}', '${orgId}', 't', '${randomBytes(5).toString('hex')}', decode(repeat('02', 32), 'hex'), now() + interval '1 day');
    INSERT INTO catalog.molecules (org_id, name, smiles, canonical_smiles, formula, molecular_weight, properties,
        fingerprint, normalizer, created_by)
      SELECT '${orgId}', 'alkane ' || n, repeat('C', n), repeat('C', n), 'C' || n, 16 + n, '{}', decode(repeat('00', 256), 'hex'),
        'test', '${user}' FROM generate_series(1, 50) n;
    INSERT INTO catalog.org_usage (org_id, molecules) VALUES ('${orgId}', 50);
    INSERT INTO catalog.molecule_sets (org_id, molecule_set_id, name, size, created_by) VALUES ('${orgId}', '${set}', 'all', 50, '${user}');
    INSERT INTO catalog.molecule_set_members (org_id, molecule_set_id, item_no, molecule_id)
      SELECT org_id, '${set}', row_number() OVER (), molecule_id FROM catalog.molecules WHERE org_id = '${orgId}';
    UPDATE catalog.molecule_sets SET sealed_at = now() WHERE molecule_set_id = '${set}';
    INSERT INTO catalog.pipelines (pipeline_id, org_id, name, created_by) VALUES ('${pipeline}', '${orgId}', 'dock', '${user}');
    INSERT INTO catalog.pipeline_versions (pipeline_version_id, org_id, pipeline_id, version, spec, published, published_at, created_by)
      VALUES ('${pipeline}', '${orgId}', '${pipeline}', 1, '{"version": 1, "tasks": []}', true, now(), '${user}');
    INSERT INTO catalog.jobs_meta (org_id, pipeline_id, pipeline_version_id, molecule_set_id, parameters, plan, input_count,
        planned_tasks, status, ended_at, created_by)
      VALUES ('${orgId}', '${pipeline}', '${pipeline}', '${set}', '{}', '[]', 50, 1, 'completed', now(), '${user}');
    INSERT INTO provisioner.database_servers (name, host, port, region, connection_budget, max_tenants, provisioner_secret,
        migrator_secret, master_key_version)
      VALUES ('local', 'h', 1, 'local', 80, 10, '\\x00', '\\x00', 1) ON CONFLICT DO NOTHING;
    INSERT INTO provisioner.data_keys (org_id, version, wrapped_key, master_key_version) VALUES ('${orgId}', 1, ${KEY}, 1);
    INSERT INTO provisioner.operations (operation_id, org_id, schema, kind, state, ended_at)
      VALUES ('${operation}', '${orgId}', 'results', 'provision', 'succeeded', now());
    INSERT INTO provisioner.tenants (org_id, schema, server_id, database_name, region, operation_id, state, ready_at)
      SELECT '${orgId}', 'results', server_id, 'mad_results_${orgId.replaceAll('-', '')}', 'local', '${operation}', 'ready', now()
      FROM provisioner.database_servers;
    INSERT INTO provisioner.tenant_credentials (org_id, schema, slot, role_name, secret, data_key_version, active)
      VALUES ('${orgId}', 'results', 'a', 'mad_results_${orgId.replaceAll('-', '')}_a', '\\x5ec4e7', 1, true);
    INSERT INTO provisioner.backups (org_id, schema, operation_id, object_key, completed_at, snapshot_at, sha256)
      VALUES ('${orgId}', 'results', '${operation}', '${object}', now(), now(), repeat('0', 64));
    INSERT INTO provisioner.backup_policies (org_id, every_hours, keep) VALUES ('${orgId}', 12, 3)`;
}
