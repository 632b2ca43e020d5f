import { describe, expect, test } from '@jest/globals';
import { clientOptions } from '@mad/postgres';
import { metadataDatabase, schemaSuite } from '@mad/testing';
import pg from 'pg';
import { provisionerEntities, provisionerMigrations } from '../src/index.ts';

const ORG = '01900000-0000-7000-8000-000000000001';
const OTHER = '01900000-0000-7000-8000-000000000002';
const SERVER = '01900000-0000-7000-8000-000000000003';
const OPERATION = '01900000-0000-7000-8000-000000000004';
const NOBODY = '01900000-0000-7000-8000-0000000000ff';

const SERVER_COLUMNS =
  'name, host, port, region, connection_budget, max_tenants, provisioner_secret, migrator_secret, master_key_version';
const SERVER_VALUES = `'h', 1, 'local', 80, 10, '\\x00', '\\x00', 1`;
const KEY = `decode(repeat('01', 60), 'hex')`;

/** Rows that are right, for the others to collide with and refer to. */
const GOOD_ROWS = `
  INSERT INTO database_servers (server_id, ${SERVER_COLUMNS}) VALUES ('${SERVER}', 'local', ${SERVER_VALUES});
  INSERT INTO data_keys (org_id, version, wrapped_key, master_key_version) VALUES ('${ORG}', 1, ${KEY}, 1);
  INSERT INTO operations (operation_id, org_id, schema, kind) VALUES ('${OPERATION}', '${ORG}', 'results', 'provision');
  INSERT INTO tenants (org_id, schema, server_id, database_name, region, operation_id)
    VALUES ('${ORG}', 'results', '${SERVER}', 'mad_results_1', 'local', '${OPERATION}');
  INSERT INTO tenant_credentials (org_id, schema, slot, role_name, secret, data_key_version, active)
    VALUES ('${ORG}', 'results', 'a', 'mad_results_1_a', '\\x00', 1, true);
  INSERT INTO cleanup_records (cleanup_id, operation_id, org_id, schema, server_id, object_kind, object_name)
    VALUES ('${ORG}', '${OPERATION}', '${ORG}', 'results', '${SERVER}', 'database', 'mad_results_1');
  INSERT INTO tenant_stock (stock_id, server_id, schema, database_name, template)
    VALUES ('${ORG}', '${SERVER}', 'results', 'mad_results_stock_1', 'mad_results_template_1');
  INSERT INTO backups (backup_id, org_id, schema, operation_id) VALUES ('${ORG}', '${ORG}', 'results', '${OPERATION}');
  INSERT INTO backup_policies (org_id, every_hours, keep) VALUES ('${ORG}', 24, 7);
  INSERT INTO connection_shares (server_id, node, share, granted, wanted, expires_at) VALUES ('${SERVER}', 'results-1', 1, 1, 1, now());
  INSERT INTO server_standbys (server_id, host, port) VALUES ('${SERVER}', 'h', 2);
  INSERT INTO schema_references (server_id, schema, digest, server_version, objects)
    VALUES ('${SERVER}', 'results', repeat('a', 64), 160000, '[]');
  INSERT INTO tenant_indexes (org_id, schema, name, table_name, columns, method)
    VALUES ('${ORG}', 'results', 'own_one', 'jobs', '{status}', 'btree');
  INSERT INTO migration_rollouts (rollout_id, schema, version, rules, actor_kind)
    VALUES ('${ORG}', 'results', 'Jobs1', '{}', 'platform');
  INSERT INTO migration_runs (rollout_id, org_id, schema, wave) VALUES ('${ORG}', '${ORG}', 'results', 0);
  INSERT INTO server_samples (server_id) VALUES ('${SERVER}');
  INSERT INTO placements (org_id, schema, region, server_name, verdicts) VALUES ('${ORG}', 'results', 'local', 'local', '[]');
  INSERT INTO erasure_records (erasure_id, org_id, operation_id, record, hash, key_id, public_key, signature, erased_at)
    VALUES ('${ORG}', '${ORG}', '${OPERATION}', '{}', repeat('0', 64), 'k', '{}', 's', now());
  INSERT INTO tenant_change_counters (schema, last_seq) VALUES ('results', 1);
  INSERT INTO tenant_changes (schema, seq, org_id, generation, state) VALUES ('results', 1, '${ORG}', 1, 'ready');`;

const server = (id: string, name: string): string =>
  `INSERT INTO database_servers (server_id, ${SERVER_COLUMNS}) VALUES ('${id}', '${name}', ${SERVER_VALUES})`;
const tenant = (org: string, more: { server?: string; operation?: string; name?: string } = {}): string =>
  `INSERT INTO tenants (org_id, schema, server_id, database_name, region, operation_id) VALUES ('${org}', 'results',
     '${more.server ?? SERVER}', '${more.name ?? 'mad_results_2'}', 'local', '${more.operation ?? OPERATION}')`;
const credential = (org: string, slot: string, keyVersion: number, active: boolean): string =>
  `INSERT INTO tenant_credentials (org_id, schema, slot, role_name, secret, data_key_version, active)
   VALUES ('${org}', 'results', '${slot}', 'mad_results_1_b', '\\x00', ${keyVersion}, ${active})`;
const cleanup = (id: string, name: string, operation = OPERATION, at = SERVER): string =>
  `INSERT INTO cleanup_records (cleanup_id, operation_id, org_id, schema, server_id, object_kind, object_name)
   VALUES ('${id}', '${operation}', '${ORG}', 'results', '${at}', 'database', '${name}')`;
const stock = (name: string): string =>
  `INSERT INTO tenant_stock (stock_id, server_id, schema, database_name, template)
   VALUES (gen_random_uuid(), '${SERVER}', 'results', '${name}', 'mad_results_template_1')`;
const share = (node: string, at = SERVER): string =>
  `INSERT INTO connection_shares (server_id, node, share, granted, wanted, expires_at) VALUES ('${at}', '${node}', 1, 1, 1, now())`;
const change = (seq: number, org = ORG): string =>
  `INSERT INTO tenant_changes (schema, seq, org_id, generation, state) VALUES ('results', ${seq}, '${org}', 1, 'ready')`;

const erasure = (id: string, org: string): string =>
  `INSERT INTO erasure_records (erasure_id, org_id, operation_id, record, hash, key_id, public_key, signature, erased_at)
   VALUES ('${id}', '${org}', '${OPERATION}', '{}', repeat('0', 64), 'k', '{}', 's', now())`;

/** An UPDATE of the right row, or an INSERT beside it, that breaks the constraint of that name and no other. */
const BAD_ROWS: Record<string, string> = {
  connection_shares_pkey: share('results-1'),
  connection_shares_server_id_fkey: share('results-2', NOBODY),
  connection_shares_node_check: share('results/2'),
  connection_shares_share_check: 'UPDATE connection_shares SET granted = 0',
  database_servers_pkey: server(SERVER, 'other'),
  database_servers_name_key: server(OTHER, 'local'),
  database_servers_name_check: `UPDATE database_servers SET name = 'Local; DROP'`,
  database_servers_host_check: `UPDATE database_servers SET host = ''`,
  database_servers_port_check: `UPDATE database_servers SET port = 65536`,
  database_servers_sslmode_check: `UPDATE database_servers SET sslmode = 'maybe'`,
  database_servers_region_check: `UPDATE database_servers SET region = 'EU'`,
  database_servers_connection_budget_check: `UPDATE database_servers SET connection_budget = 0`,
  database_servers_max_tenants_check: `UPDATE database_servers SET max_tenants = 0`,
  database_servers_system_check: `UPDATE database_servers SET timeline = 1, system_identifier = 'x'`,
  database_servers_timeline_check: `UPDATE database_servers SET timeline = 1`,
  server_standbys_pkey: `INSERT INTO server_standbys (server_id, host, port) VALUES ('${SERVER}', 'h', 2)`,
  server_standbys_server_id_fkey: `UPDATE server_standbys SET server_id = '${NOBODY}'`,
  server_standbys_host_check: `UPDATE server_standbys SET host = ''`,
  server_standbys_port_check: `UPDATE server_standbys SET port = 0`,
  server_standbys_sslmode_check: `UPDATE server_standbys SET sslmode = 'maybe'`,
  database_servers_master_key_version_check: `UPDATE database_servers SET master_key_version = 0`,
  data_keys_pkey: `INSERT INTO data_keys (org_id, version, wrapped_key, master_key_version) VALUES ('${ORG}', 1, ${KEY}, 1)`,
  data_keys_version_check: `INSERT INTO data_keys (org_id, version, wrapped_key, master_key_version) VALUES ('${OTHER}', 0, ${KEY}, 1)`,
  data_keys_wrapped_key_check: `UPDATE data_keys SET wrapped_key = '\\x00'`,
  data_keys_master_key_version_check: `UPDATE data_keys SET master_key_version = 0`,
  operations_pkey: `INSERT INTO operations (operation_id, org_id, schema, kind) VALUES ('${OPERATION}', '${ORG}', 'results', 'migrate')`,
  operations_kind_check: `UPDATE operations SET kind = 'Guess!'`,
  operations_state_check: `UPDATE operations SET state = 'odd', ended_at = now()`,
  operations_ended_check: `UPDATE operations SET state = 'failed'`,
  operations_cause_check: `UPDATE operations SET cause = 'Why?'`,
  operations_step_check: `UPDATE operations SET step = 'dance; DROP'`,
  operations_params_check: `UPDATE operations SET params = '[]'`,
  operations_result_check: `UPDATE operations SET result = '1'`,
  operations_actor_kind_check: `UPDATE operations SET actor_kind = 'cat'`,
  operations_progress_check: `UPDATE operations SET progress_done = 2, progress_total = 1`,
  tenants_pkey: tenant(ORG),
  tenants_database_name_key: tenant(OTHER, { name: 'mad_results_1' }),
  tenants_server_id_fkey: tenant(OTHER, { server: NOBODY }),
  tenants_operation_id_fkey: tenant(OTHER, { operation: NOBODY }),
  tenants_schema_check: tenant(OTHER).replace(`'results'`, `'Results!'`),
  tenants_database_name_check: `UPDATE tenants SET database_name = 'postgres'`,
  tenants_region_check: `UPDATE tenants SET region = ''`,
  tenants_state_check: `UPDATE tenants SET state = 'lost'`,
  tenants_step_check: `UPDATE tenants SET step = 'dance; DROP'`,
  tenants_lease_check: `UPDATE tenants SET step_owner = '${OTHER}'`,
  tenants_ready_check: `UPDATE tenants SET state = 'ready'`,
  tenants_generation_check: `UPDATE tenants SET generation = 0`,
  tenants_drift_check: `UPDATE tenants SET drift_count = 1`,
  tenants_labels_check: `UPDATE tenants SET labels = '[]'`,
  tenant_credentials_pkey: credential(ORG, 'a', 1, false),
  tenant_credentials_tenant_fkey: credential(ORG, 'b', 1, false).replace(`'results'`, `'other'`),
  tenant_credentials_data_key_fkey: credential(ORG, 'b', 2, false),
  tenant_credentials_slot_check: credential(ORG, 'c', 1, false),
  tenant_credentials_role_name_check: `UPDATE tenant_credentials SET role_name = 'postgres'`,
  tenant_credentials_retire_check: 'UPDATE tenant_credentials SET sessions_before = now()',
  idx_tenant_credentials_active: credential(ORG, 'b', 1, true),
  cleanup_records_pkey: cleanup(ORG, 'mad_results_2'),
  cleanup_records_object_key: cleanup(OTHER, 'mad_results_1'),
  cleanup_records_operation_id_fkey: cleanup(OTHER, 'mad_results_2', NOBODY),
  cleanup_records_server_id_fkey: cleanup(OTHER, 'mad_results_2', OPERATION, NOBODY),
  cleanup_records_object_kind_check: `UPDATE cleanup_records SET object_kind = 'table'`,
  cleanup_records_object_name_check: `UPDATE cleanup_records SET object_name = 'postgres'`,
  tenant_stock_pkey: stock('mad_results_stock_2').replace('gen_random_uuid()', `'${ORG}'`),
  tenant_stock_database_name_key: stock('mad_results_stock_1'),
  tenant_stock_server_id_fkey: `UPDATE tenant_stock SET server_id = '${NOBODY}'`,
  tenant_stock_schema_check: `UPDATE tenant_stock SET schema = 'Results!'`,
  tenant_stock_database_name_check: `UPDATE tenant_stock SET database_name = 'postgres'`,
  tenant_stock_template_check: `UPDATE tenant_stock SET template = 'template1'`,
  tenant_stock_state_check: `UPDATE tenant_stock SET state = 'sold'`,
  tenant_stock_claim_check: `UPDATE tenant_stock SET state = 'claimed'`,
  idx_tenant_stock_org_id_schema: `UPDATE tenant_stock SET state = 'claimed', org_id = '${ORG}';
    ${stock('mad_results_stock_2')}; UPDATE tenant_stock SET state = 'claimed', org_id = '${ORG}'`,
  backups_pkey: `INSERT INTO backups (backup_id, org_id, schema, operation_id) VALUES ('${ORG}', '${ORG}', 'results', '${OPERATION}')`,
  backups_operation_id_fkey: `UPDATE backups SET operation_id = '${NOBODY}'`,
  backups_schema_check: `UPDATE backups SET schema = 'Results!'`,
  backups_completed_check: `UPDATE backups SET completed_at = now()`,
  backups_counts_check: `UPDATE backups SET size_bytes = -1`,
  backups_tables_check: `UPDATE backups SET tables = '{}'`,
  backup_policies_pkey: `INSERT INTO backup_policies (org_id, every_hours, keep) VALUES ('${ORG}', 1, 1)`,
  backup_policies_every_hours_check: `UPDATE backup_policies SET every_hours = -1`,
  backup_policies_keep_check: `UPDATE backup_policies SET keep = 0`,
  schema_references_pkey: `INSERT INTO schema_references (server_id, schema, digest, server_version, objects)
    VALUES ('${SERVER}', 'results', repeat('a', 64), 160000, '[]')`,
  schema_references_server_id_fkey: `UPDATE schema_references SET server_id = '${NOBODY}'`,
  schema_references_schema_check: `UPDATE schema_references SET schema = 'Results!'`,
  schema_references_digest_check: `UPDATE schema_references SET digest = 'short'`,
  schema_references_objects_check: `UPDATE schema_references SET objects = '{}'`,
  tenant_indexes_pkey: `INSERT INTO tenant_indexes (org_id, schema, name, table_name, columns, method)
    VALUES ('${ORG}', 'results', 'own_one', 'jobs', '{status}', 'btree')`,
  tenant_indexes_tenant_fkey: `UPDATE tenant_indexes SET org_id = '${NOBODY}'`,
  tenant_indexes_name_check: `UPDATE tenant_indexes SET name = 'jobs_pkey'`,
  tenant_indexes_table_name_check: `UPDATE tenant_indexes SET table_name = 'jobs; DROP'`,
  tenant_indexes_columns_check: `UPDATE tenant_indexes SET columns = '{}'`,
  tenant_indexes_method_check: `UPDATE tenant_indexes SET method = 'guess'`,
  tenant_indexes_state_check: `UPDATE tenant_indexes SET state = 'lost'`,
  tenant_indexes_definition_check: `UPDATE tenant_indexes SET state = 'ready'`,
  migration_rollouts_pkey: `INSERT INTO migration_rollouts (rollout_id, schema, version, rules, actor_kind)
    VALUES ('${ORG}', 'other', 'Jobs1', '{}', 'platform')`,
  migration_rollouts_schema_check: `UPDATE migration_rollouts SET schema = 'Results!'`,
  migration_rollouts_state_check: `UPDATE migration_rollouts SET state = 'lost'`,
  migration_rollouts_direction_check: `UPDATE migration_rollouts SET direction = 'sideways'`,
  migration_rollouts_wave_check: 'UPDATE migration_rollouts SET wave = -1',
  migration_rollouts_rules_check: `UPDATE migration_rollouts SET rules = '[]'`,
  migration_rollouts_driver_check: 'UPDATE migration_rollouts SET driver_until = now()',
  migration_rollouts_actor_kind_check: `UPDATE migration_rollouts SET actor_kind = 'cat'`,
  migration_rollouts_ended_check: 'UPDATE migration_rollouts SET ended_at = now()',
  idx_migration_rollouts_under_way: `INSERT INTO migration_rollouts (rollout_id, schema, version, rules, actor_kind)
    VALUES ('${OTHER}', 'results', 'Jobs1', '{}', 'platform')`,
  migration_runs_pkey: `INSERT INTO migration_runs (rollout_id, org_id, schema, wave)
    VALUES ('${ORG}', '${ORG}', 'results', 1)`,
  migration_runs_rollout_id_fkey: `UPDATE migration_runs SET rollout_id = '${NOBODY}'`,
  migration_runs_operation_id_fkey: `UPDATE migration_runs SET operation_id = '${NOBODY}'`,
  migration_runs_tenant_fkey: `UPDATE migration_runs SET schema = 'other'`,
  migration_runs_state_check: `UPDATE migration_runs SET state = 'lost'`,
  migration_runs_wave_check: 'UPDATE migration_runs SET wave = -1',
  migration_runs_attempts_check: 'UPDATE migration_runs SET attempts = -1',
  migration_runs_running_check: `UPDATE migration_runs SET state = 'running'`,
  database_servers_labels_check: `UPDATE database_servers SET labels = '[]'`,
  database_servers_reserved_connections_check: 'UPDATE database_servers SET reserved_connections = -1',
  server_samples_pkey: `INSERT INTO server_samples (server_id) VALUES ('${SERVER}')`,
  server_samples_server_id_fkey: `INSERT INTO server_samples (server_id) VALUES ('${NOBODY}')`,
  server_samples_counts_check: 'UPDATE server_samples SET sessions = -1',
  placements_pkey: `INSERT INTO placements (org_id, schema, region, server_name, verdicts) VALUES ('${ORG}', 'results', 'l', 's', '[]')`,
  placements_verdicts_check: `UPDATE placements SET verdicts = '{}'`,
  erasure_records_pkey: erasure(ORG, OTHER),
  erasure_records_org_id_key: erasure(OTHER, ORG),
  erasure_records_record_check: `UPDATE erasure_records SET record = '[]'`,
  erasure_records_hash_check: `UPDATE erasure_records SET hash = 'x'`,
  erasure_records_public_key_check: `UPDATE erasure_records SET public_key = '{"d": "x"}'`,
  tenant_change_counters_pkey: `INSERT INTO tenant_change_counters (schema) VALUES ('results')`,
  tenant_change_counters_last_seq_check: `UPDATE tenant_change_counters SET last_seq = -1`,
  tenant_changes_pkey: change(1),
  tenant_changes_tenant_fkey: change(2, NOBODY),
  tenant_changes_seq_check: change(0),
  tenant_changes_generation_check: `UPDATE tenant_changes SET generation = 0`,
};

const suite = schemaSuite({
  schema: 'provisioner',
  migrations: provisionerMigrations,
  entities: provisionerEntities,
  open: (migrations) => metadataDatabase({ services: [{ schema: 'provisioner', migrations }] }),
  goodRows: GOOD_ROWS,
  badRows: BAD_ROWS,
  moreObjectsThan: 50,
  personal: ['migration_rollouts.user_id', 'operations.user_id'],
  confidential: [
    'data_keys.wrapped_key',
    'database_servers.migrator_secret',
    'database_servers.provisioner_secret',
    'erasure_records.record',
    'tenant_credentials.secret',
  ],
});

describe('rights', () => {
  async function as(role: string, sql: string, org?: string): Promise<pg.QueryResult> {
    const client = new pg.Client(clientOptions(suite.db().url(role)));
    await client.connect();
    try {
      if (org !== undefined) await client.query(`SELECT set_config('app.current_org_id', $1, false)`, [org]);
      return await client.query(sql);
    } finally {
      await client.end();
    }
  }

  test('the login that serves users sees the tenants of one organization, no secret, and writes nothing', async () => {
    await suite.admin().query(GOOD_ROWS);
    const count = 'SELECT count(*)::int AS n FROM tenants';
    expect((await as('mad_provisioner', count)).rows).toEqual([{ n: 0 }]);
    expect((await as('mad_provisioner', count, ORG)).rows).toEqual([{ n: 1 }]);
    expect((await as('mad_provisioner', count, OTHER)).rows).toEqual([{ n: 0 }]);
    expect((await as('mad_provisioner_system', count)).rows).toEqual([{ n: 1 }]);
    for (const sql of [
      'SELECT name FROM database_servers',
      'SELECT org_id FROM data_keys',
      'SELECT org_id FROM tenant_credentials',
      'SELECT org_id FROM operations',
      'SELECT org_id FROM cleanup_records',
      'SELECT org_id FROM tenant_changes',
      'SELECT org_id FROM tenant_stock',
      'SELECT org_id FROM tenant_indexes',
      'SELECT org_id FROM migration_runs',
      'SELECT schema FROM migration_rollouts',
      'SELECT schema FROM schema_references',
      'SELECT org_id FROM erasure_records',
      'SELECT org_id FROM placements',
      `UPDATE tenants SET state = 'ready'`,
      'DELETE FROM tenants',
    ]) {
      await expect(as('mad_provisioner', sql, ORG)).rejects.toMatchObject({ code: '42501' });
    }
    for (const sql of [
      'UPDATE tenant_changes SET seq = 2',
      'DELETE FROM tenant_changes',
      'DELETE FROM erasure_records',
    ]) {
      await expect(as('mad_provisioner_system', sql)).rejects.toMatchObject({ code: '42501' });
    }
  });
});
