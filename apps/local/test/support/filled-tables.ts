// What query-plans.test.ts fills the tables with.

/** Tables that no installation fills, and why. */
export const SMALL = {
  identity: ['signing_keys', 'role_permissions', 'migrations'],
  catalog: ['task_definitions', 'pipeline_templates', 'migrations', 'org_queue_depth'],
  // The stock is a handful of databases.
  provisioner: [
    'tenant_stock',
    'database_servers',
    'server_samples',
    'connection_shares',
    'server_standbys',
    'tenant_change_counters',
    'migrations',
  ],
  results: ['migrations'],
};

/** Tables that the run below leaves without a row to copy: what cleaning up left, and artifacts a job was given. */
export const EMPTY = {
  identity: [] as string[],
  catalog: ['erasures'],
  provisioner: [
    'backup_policies',
    'backups',
    'cleanup_records',
    'erasure_records',
    'migration_rollouts',
    'migration_runs',
    'schema_references',
    'tenant_indexes',
  ],
  results: ['job_inputs'],
};

const SHA256 = `md5('a' || n) || md5('b' || n)`;
/** A job of the same time: its id says in which partition it is. */
const SAME_MONTH = `left((b.t).job_id::text, 13) || substr(gen_random_uuid()::text, 14)`;
export const VALUES = {
  identity: { 'tokens.prefix': `left(md5('p' || n), char_length((b.t).prefix))` },
  catalog: {
    'artifacts.purpose': '(b.t).purpose',
    'artifacts.sha256': SHA256,
    'molecules.name': `'molecule ' || n`,
    'molecules.canonical_smiles': `'C(' || n || ')'`,
    'molecules.smiles': `'C(' || n || ')'`,
  },
  provisioner: {
    'tenants.schema': '(b.t).schema',
    // Of no schema that anybody follows: a gap in the log of one that is would be reported.
    'tenant_changes.schema': `'other'`,
    // Of others: an organization has one, and what is not a key opens nothing.
    'data_keys.org_id': 'gen_random_uuid()',
    'tenant_credentials.org_id': 'gen_random_uuid()',
    'tenant_credentials.schema': '(b.t).schema',
    'tenant_credentials.slot': '(b.t).slot',
  },
  results: {
    'audit_log.hash': SHA256,
    'audit_log.prev_hash': `md5('c' || n) || md5('d' || n)`,
    'result_cache.input_signature': SHA256,
    'export_parts.sha256': SHA256,
    'result_cache.smiles': `'C(' || n || ')'`,
    'result_cache.cache_key': `(b.t).task || ':' || ${SHA256}`,
    ...Object.fromEntries(
      [
        'jobs',
        'job_tasks',
        'job_inputs',
        'task_executions',
        'task_results',
        'docking_results',
        'job_events',
        'score_histograms',
        'failure_counts',
        'exports',
      ].map((table) => [`${table}.job_id`, SAME_MONTH]),
    ),
  },
} satisfies Record<string, Record<string, string>>;

/** What is only there while something is under way: one row of each, for the copies. */
export const UNDER_WAY_SQL = `
  INSERT INTO results.staged_results (task_execution_id, item_no, status)
    SELECT task_execution_id, 1000, 'scored' FROM results.task_executions LIMIT 1;
  INSERT INTO results.docking_results (job_id, task_id, item_no, replicate, pose_rank, molecule_id, score, raw_score, rmsd_lb,
      rmsd_ub, task_execution_id, chunk_no)
    SELECT job_id, task_id, item_no, 1, 1, molecule_id, -5, -5, 0, 0, task_execution_id, 1 FROM results.task_results
    WHERE task_execution_id IS NOT NULL LIMIT 1;
  INSERT INTO results.stored_objects (object_id, purpose, owner_id, task_execution_id, state)
    SELECT gen_random_uuid(), 'poses', job_id, task_execution_id, 'kept' FROM results.task_executions LIMIT 1;
  INSERT INTO results.exports (export_id, job_id, task_id, format, snapshot_seq, part_rows, state, ended_at)
    SELECT gen_random_uuid(), job_id, 'x', 'csv', 1, 1, 'completed', now() FROM results.jobs LIMIT 1;
  INSERT INTO results.export_parts (export_id, part_no, object_id, rows, size_bytes, sha256)
    SELECT export_id, 1, export_id, 1, 1, repeat('a', 64) FROM results.exports LIMIT 1;
  INSERT INTO results.failure_counts (job_id, task_id, error_class, items)
    SELECT job_id, task_id, 'IMPLAUSIBLE', 1 FROM results.job_tasks LIMIT 1;
  INSERT INTO results.cache_invalidations (invalidation_id, predicate, reason, entries, jobs, created_by)
    VALUES (gen_random_uuid(), '{}', 'a test', 1, 0, '');
  INSERT INTO results.cache_invalidation_entries (invalidation_id, cache_key, version, status)
    SELECT invalidation_id, 'none', 1, 'valid' FROM results.cache_invalidations LIMIT 1;
  INSERT INTO results.result_cache_history (cache_key, version, canonical_job_id, canonical_task_id, canonical_item_no,
      metrics_summary, status, hit_count, created_at, reason)
    SELECT cache_key, version, canonical_job_id, canonical_task_id, canonical_item_no, metrics_summary, 'valid', 0, created_at,
      'better' FROM results.result_cache LIMIT 1;
  INSERT INTO results.retention_policies (policy_id, version, rules, set_by) VALUES (gen_random_uuid(), 1, '[]', '');
  INSERT INTO results.retention_runs (run_id, policy_version, ended_at) VALUES (gen_random_uuid(), 1, now())`;
