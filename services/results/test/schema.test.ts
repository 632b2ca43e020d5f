import { expect, test } from '@jest/globals';
import { schemaSuite } from '@mad/testing';
import { resultsEntities, resultsMigrations } from '../src/index.ts';
import { onServer, tenantDatabase } from './support/tenant-database.ts';

/** A job of November 2026. */
const JOB = '01a1f000-0000-7000-8000-000000000001';
const EXECUTION = '01a1f000-0000-7000-8000-000000000002';
const OTHER = '01a1f000-0000-7000-8000-0000000000ff';
const SHA = `repeat('a', 64)`;

/** Rows that are right, for the others to collide with and refer to. */
const GOOD_ROWS = `
  SELECT ensure_partitions('2026-11-01');
  INSERT INTO jobs (job_id, pipeline_version_id, input_signature, requested, pending) VALUES ('${JOB}', '${OTHER}', ${SHA}, 2, 2);
  INSERT INTO job_tasks (job_id, task_id, position, plan, requested, pending) VALUES ('${JOB}', 'a', 1, '{}', 2, 2);
  INSERT INTO job_inputs (job_id, key, uri, checksum) VALUES ('${JOB}', 'a.receptor', 'artifact:1', ${SHA});
  INSERT INTO task_executions (task_execution_id, job_id, task_id, chunk_no) VALUES ('${EXECUTION}', '${JOB}', 'a', 1);
  INSERT INTO task_results (job_id, task_id, item_no, molecule_id, smiles, input_signature, task_execution_id)
    VALUES ('${JOB}', 'a', 1, '${OTHER}', 'CCO', ${SHA}, '${EXECUTION}');
  INSERT INTO staged_results (task_execution_id, item_no, status) VALUES ('${EXECUTION}', 1, 'scored');
  INSERT INTO result_cache (cache_key, task, input_signature, canonical_job_id, canonical_task_id, canonical_item_no)
    VALUES ('t:' || ${SHA}, 't', ${SHA}, '${JOB}', 'a', 1);
  INSERT INTO result_cache_history (cache_key, version, canonical_job_id, canonical_task_id, canonical_item_no, metrics_summary,
    status, hit_count, created_at, reason) VALUES ('t:' || ${SHA}, 1, '${JOB}', 'a', 1, '{}', 'valid', 0, now(), 'better');
  INSERT INTO cache_invalidations (invalidation_id, predicate, reason, entries, jobs, created_by)
    VALUES ('${OTHER}', '{}', 'x', 1, 0, '');
  INSERT INTO cache_invalidation_entries (invalidation_id, cache_key, version, status) VALUES ('${OTHER}', 't:' || ${SHA}, 1, 'valid');
  INSERT INTO docking_results (job_id, task_id, item_no, replicate, pose_rank, molecule_id, score, raw_score, rmsd_lb, rmsd_ub,
    task_execution_id, chunk_no) VALUES ('${JOB}', 'a', 1, 1, 1, '${OTHER}', -7, -8, 0, 0, '${EXECUTION}', 1);
  INSERT INTO stored_objects (object_id, purpose, owner_id) VALUES ('${OTHER}', 'poses', '${JOB}');
  INSERT INTO exports (export_id, job_id, task_id, format, snapshot_seq, part_rows) VALUES ('${OTHER}', '${JOB}', 'a', 'csv', 1, 10);
  INSERT INTO export_parts (export_id, part_no, object_id, rows, size_bytes, sha256) VALUES ('${OTHER}', 1, '${OTHER}', 1, 1, ${SHA});
  INSERT INTO score_histograms (job_id, task_id, bin, items) VALUES ('${JOB}', 'a', -73, 1);
  INSERT INTO failure_counts (job_id, task_id, error_class, items) VALUES ('${JOB}', 'a', 'X', 1);
  INSERT INTO job_events (job_id, seq_no, event) VALUES ('${JOB}', 1, 'job.materialized');
  INSERT INTO retention_policies (policy_id, version, rules, set_by) VALUES ('${OTHER}', 1, '[]', '');
  INSERT INTO retention_runs (run_id, policy_version) VALUES ('${OTHER}', 1);
  INSERT INTO audit_log (seq, ts, action, job_id, outcome, prev_hash, hash)
    VALUES (1, now(), 'job.create', '${JOB}', 'ok', repeat('0', 64), ${SHA});`;

const ITEM =
  'INSERT INTO task_results (job_id, task_id, item_no, molecule_id, smiles, input_signature, task_execution_id) VALUES';

/** An UPDATE of the right row, or an INSERT beside it, that breaks the constraint of that name and no other. */
const BAD_ROWS: Record<string, string> = {
  jobs_pkey: `INSERT INTO jobs (job_id, pipeline_version_id, input_signature, requested, pending) VALUES ('${JOB}', '${OTHER}', ${SHA}, 1, 1)`,
  jobs_counters_check: `UPDATE jobs SET requested = 3`,
  jobs_counters_not_negative_check: `UPDATE jobs SET pending = 3, scored = -1`,
  jobs_input_signature_check: `UPDATE jobs SET input_signature = 'x'`,
  jobs_params_check: `UPDATE jobs SET params = '[]'`,
  jobs_timings_check: `UPDATE jobs SET timings = '1'`,
  jobs_metrics_check: `UPDATE jobs SET metrics = '"x"'`,
  jobs_max_age_s_check: `UPDATE jobs SET max_age_s = 0`,
  jobs_min_confidence_check: `UPDATE jobs SET min_confidence = 1.5`,
  jobs_event_seq_check: `UPDATE jobs SET event_seq = -1`,
  jobs_created_by_check: `UPDATE jobs SET created_by = repeat('x', 37)`,
  jobs_ended_check: `UPDATE jobs SET ended_at = now(), pending = 0, scored = 2`,
  jobs_pending_check: `UPDATE jobs SET ended_at = now(), status = 'completed'`,
  jobs_results_dropped_check: `UPDATE jobs SET results_dropped_at = now(), results_top = 0`,
  jobs_results_top_check: `UPDATE jobs SET results_top = 5`,
  jobs_results_needed_check: `UPDATE jobs SET results_needed = 1`,
  jobs_core_ms_check: `UPDATE jobs SET core_ms = -1`,
  jobs_saved_core_ms_check: `UPDATE jobs SET saved_core_ms = -1`,
  jobs_sweep_due_check: `UPDATE jobs SET sweep_due = true`,
  jobs_drop_progress_check: `UPDATE jobs SET drop_progress = '{}'`,
  job_tasks_pkey: `INSERT INTO job_tasks (job_id, task_id, position, plan) VALUES ('${JOB}', 'a', 2, '{}')`,
  job_tasks_position_key: `INSERT INTO job_tasks (job_id, task_id, position, plan) VALUES ('${JOB}', 'b', 1, '{}')`,
  job_tasks_job_fkey: `INSERT INTO job_tasks (job_id, task_id, position, plan) VALUES ('${OTHER}', 'a', 1, '{}')`,
  job_tasks_counters_check: `UPDATE job_tasks SET scored = 1`,
  job_tasks_counters_not_negative_check: `UPDATE job_tasks SET pending = 3, failed = -1`,
  job_tasks_task_id_check: `INSERT INTO job_tasks (job_id, task_id, position, plan) VALUES ('${JOB}', '', 2, '{}')`,
  job_tasks_position_check: `UPDATE job_tasks SET position = 0`,
  job_tasks_plan_check: `UPDATE job_tasks SET plan = '[]'`,
  job_tasks_bin_width_check: `UPDATE job_tasks SET bin_width = 0`,
  job_inputs_pkey: `INSERT INTO job_inputs (job_id, key, uri, checksum) VALUES ('${JOB}', 'a.receptor', 'x', ${SHA})`,
  job_inputs_job_fkey: `INSERT INTO job_inputs (job_id, key, uri, checksum) VALUES ('${OTHER}', 'x', 'x', ${SHA})`,
  job_inputs_key_check: `UPDATE job_inputs SET key = ''`,
  job_inputs_size_bytes_check: `UPDATE job_inputs SET size_bytes = -1`,
  job_inputs_checksum_check: `UPDATE job_inputs SET checksum = 'x'`,
  task_executions_pkey: `INSERT INTO task_executions (task_execution_id, job_id, task_id, chunk_no) VALUES ('${EXECUTION}', '${JOB}', 'a', 2)`,
  task_executions_chunk_key: `INSERT INTO task_executions (job_id, task_id, chunk_no) VALUES ('${JOB}', 'a', 1)`,
  task_executions_task_fkey: `INSERT INTO task_executions (job_id, task_id, chunk_no) VALUES ('${JOB}', 'b', 1)`,
  task_executions_chunk_no_check: `UPDATE task_executions SET chunk_no = 0`,
  task_executions_attempt_check: `UPDATE task_executions SET attempt = -1`,
  task_executions_retries_check: `UPDATE task_executions SET retries = -1`,
  task_executions_core_ms_check: `UPDATE task_executions SET core_ms = -1`,
  task_executions_items_check: `UPDATE task_executions SET items = -1`,
  task_executions_batches_check: `UPDATE task_executions SET batches = -1`,
  task_executions_metrics_check: `UPDATE task_executions SET metrics = '[]'`,
  task_executions_ended_check: `UPDATE task_executions SET status = 'finished'`,
  task_executions_running_check: `UPDATE task_executions SET status = 'running'`,
  task_results_pkey: `${ITEM} ('${JOB}', 'a', 1, '${OTHER}', 'C', ${SHA}, '${EXECUTION}')`,
  task_results_task_fkey: `${ITEM} ('${JOB}', 'b', 1, '${OTHER}', 'C', ${SHA}, '${EXECUTION}')`,
  task_results_execution_fkey: `${ITEM} ('${JOB}', 'a', 2, '${OTHER}', 'C', ${SHA}, '${OTHER}')`,
  task_results_item_no_check: `${ITEM} ('${JOB}', 'a', 0, '${OTHER}', 'C', ${SHA}, '${EXECUTION}')`,
  task_results_smiles_check: `UPDATE task_results SET smiles = 'C C'`,
  task_results_input_signature_check: `UPDATE task_results SET input_signature = ''`,
  task_results_follows_check: `UPDATE task_results SET task_execution_id = NULL, follows_item_no = 1`,
  task_results_runs_check: `UPDATE task_results SET item_no = 3, follows_item_no = 2`,
  task_results_pending_check: `UPDATE task_results SET task_execution_id = NULL`,
  task_results_ended_check: `UPDATE task_results SET status = 'scored'`,
  task_results_score_check: `UPDATE task_results SET score = 'Infinity'`,
  task_results_confidence_score_check: `UPDATE task_results SET confidence_score = 1.01`,
  task_results_result_data_check: `UPDATE task_results SET result_data = '[]'`,
  task_results_reused_check: `UPDATE task_results SET status = 'cached', ended_at = now()`,
  task_results_error_check: `UPDATE task_results SET status = 'failed', ended_at = now()`,
  task_results_properties_check: `UPDATE task_results SET logp = 1`,
  task_results_extends_check: `UPDATE task_results SET extends_item_no = 1`,
  staged_results_pkey: `INSERT INTO staged_results (task_execution_id, item_no, status) VALUES ('${EXECUTION}', 1, 'failed')`,
  staged_results_execution_fkey: `INSERT INTO staged_results (task_execution_id, item_no, status) VALUES ('${OTHER}', 1, 'failed')`,
  staged_results_status_check: `UPDATE staged_results SET status = 'cached'`,
  result_cache_pkey: `INSERT INTO result_cache (cache_key, task, input_signature, canonical_job_id, canonical_task_id, canonical_item_no)
    VALUES ('t:' || ${SHA}, 't', ${SHA}, '${JOB}', 'a', 1)`,
  result_cache_item_fkey: `UPDATE result_cache SET canonical_item_no = 7`,
  result_cache_cache_key_check: `UPDATE result_cache SET task = 'u'`,
  result_cache_input_signature_check: `UPDATE result_cache SET input_signature = 'x', cache_key = 't:x'`,
  result_cache_confidence_score_check: `UPDATE result_cache SET confidence_score = -0.1`,
  result_cache_artifact_map_check: `UPDATE result_cache SET artifact_map = '[]'`,
  result_cache_metrics_summary_check: `UPDATE result_cache SET metrics_summary = '1'`,
  result_cache_status_check: `UPDATE result_cache SET status = 'old'`,
  result_cache_hit_count_check: `UPDATE result_cache SET hit_count = -1`,
  result_cache_version_check: `UPDATE result_cache SET version = 0`,
  result_cache_family_check: `UPDATE result_cache SET family = 'x', replicas = 1`,
  result_cache_replicas_check: `UPDATE result_cache SET replicas = 1`,
  result_cache_history_pkey: `INSERT INTO result_cache_history SELECT * FROM result_cache_history`,
  result_cache_history_entry_fkey: `UPDATE result_cache_history SET cache_key = 'x'`,
  result_cache_history_version_check: `UPDATE result_cache_history SET version = 0`,
  result_cache_history_metrics_summary_check: `UPDATE result_cache_history SET metrics_summary = '1'`,
  result_cache_history_status_check: `UPDATE result_cache_history SET status = 'pinned'`,
  result_cache_history_reason_check: `UPDATE result_cache_history SET reason = 'whim'`,
  cache_invalidations_pkey: `INSERT INTO cache_invalidations (invalidation_id, predicate, reason, entries, jobs, created_by)
    VALUES ('${OTHER}', '{}', 'x', 0, 0, '')`,
  cache_invalidations_predicate_check: `UPDATE cache_invalidations SET predicate = '[]'`,
  cache_invalidations_reason_check: `UPDATE cache_invalidations SET reason = ''`,
  cache_invalidations_entries_check: `UPDATE cache_invalidations SET entries = -1`,
  cache_invalidations_jobs_check: `UPDATE cache_invalidations SET jobs = -1`,
  cache_invalidations_items_check: `UPDATE cache_invalidations SET items = -1`,
  cache_invalidations_exports_check: `UPDATE cache_invalidations SET exports = -1`,
  cache_invalidations_undone_check: `UPDATE cache_invalidations SET undone_at = now()`,
  cache_invalidations_restored_check: `UPDATE cache_invalidations SET undone_at = now(), restored = -1`,
  cache_invalidation_entries_pkey: `INSERT INTO cache_invalidation_entries SELECT * FROM cache_invalidation_entries`,
  cache_invalidation_entries_invalidation_fkey: `UPDATE cache_invalidation_entries SET invalidation_id = '${JOB}'`,
  cache_invalidation_entries_version_check: `UPDATE cache_invalidation_entries SET version = 0`,
  cache_invalidation_entries_status_check: `UPDATE cache_invalidation_entries SET status = 'invalid'`,
  docking_results_pkey: `INSERT INTO docking_results SELECT * FROM docking_results`,
  docking_results_replicate_check: `UPDATE docking_results SET replicate = 0`,
  docking_results_pose_rank_check: `UPDATE docking_results SET pose_rank = 0`,
  docking_results_score_check: `UPDATE docking_results SET score = -50.1`,
  docking_results_raw_score_check: `UPDATE docking_results SET raw_score = 'NaN'`,
  docking_results_rmsd_check: `UPDATE docking_results SET rmsd_lb = -0.1`,
  docking_results_metadata_check: `UPDATE docking_results SET metadata = '[]'`,
  docking_results_pose_check: `UPDATE docking_results SET pose_object = '${OTHER}'`,
  stored_objects_pkey: `INSERT INTO stored_objects (object_id, purpose, owner_id) VALUES ('${OTHER}', 'poses', '${JOB}')`,
  stored_objects_purpose_check: `UPDATE stored_objects SET purpose = 'other'`,
  stored_objects_state_check: `UPDATE stored_objects SET state = 'lost'`,
  stored_objects_size_bytes_check: `UPDATE stored_objects SET size_bytes = -1`,
  exports_pkey: `INSERT INTO exports (export_id, job_id, task_id, format, snapshot_seq, part_rows)
    VALUES ('${OTHER}', '${JOB}', 'a', 'csv', 1, 10)`,
  exports_format_check: `UPDATE exports SET format = 'xlsx'`,
  exports_state_check: `UPDATE exports SET state = 'paused', ended_at = now()`,
  exports_ended_check: `UPDATE exports SET ended_at = now()`,
  exports_part_rows_check: `UPDATE exports SET part_rows = 0`,
  exports_counts_check: `UPDATE exports SET rows_done = -1`,
  exports_next_hit_check: `UPDATE exports SET next_hit = '{}'`,
  exports_lease_check: `UPDATE exports SET lease_until = now()`,
  exports_manifest_check: `UPDATE exports SET manifest = '[]'`,
  exports_created_by_check: `UPDATE exports SET created_by = repeat('x', 37)`,
  export_parts_pkey: `INSERT INTO export_parts SELECT * FROM export_parts`,
  export_parts_export_fkey: `UPDATE export_parts SET export_id = '${JOB}'`,
  export_parts_part_no_check: `UPDATE export_parts SET part_no = 0`,
  export_parts_rows_check: `UPDATE export_parts SET rows = -1`,
  export_parts_size_bytes_check: `UPDATE export_parts SET size_bytes = -1`,
  export_parts_sha256_check: `UPDATE export_parts SET sha256 = 'x'`,
  score_histograms_pkey: `INSERT INTO score_histograms SELECT * FROM score_histograms`,
  score_histograms_task_fkey: `UPDATE score_histograms SET task_id = 'b'`,
  score_histograms_items_check: `UPDATE score_histograms SET items = 0`,
  failure_counts_pkey: `INSERT INTO failure_counts SELECT * FROM failure_counts`,
  failure_counts_task_fkey: `UPDATE failure_counts SET task_id = 'b'`,
  failure_counts_items_check: `UPDATE failure_counts SET items = 0`,
  job_events_pkey: `INSERT INTO job_events (job_id, seq_no, event) VALUES ('${JOB}', 1, 'x')`,
  job_events_seq_no_check: `UPDATE job_events SET seq_no = 0`,
  job_events_event_check: `UPDATE job_events SET event = ''`,
  job_events_metadata_check: `UPDATE job_events SET metadata = '[]'`,
  retention_policies_pkey: `INSERT INTO retention_policies (policy_id, version, rules, set_by) VALUES ('${OTHER}', 2, '[]', '')`,
  retention_policies_version_key: `INSERT INTO retention_policies (policy_id, version, rules, set_by) VALUES ('${JOB}', 1, '[]', '')`,
  retention_policies_version_check: `INSERT INTO retention_policies (policy_id, version, rules, set_by) VALUES ('${JOB}', 0, '[]', '')`,
  retention_policies_rules_check: `UPDATE retention_policies SET rules = '{}'`,
  retention_runs_pkey: `INSERT INTO retention_runs (run_id, policy_version) VALUES ('${OTHER}', 1)`,
  retention_runs_policy_fkey: `UPDATE retention_runs SET policy_version = 2`,
  retention_runs_counts_check: `UPDATE retention_runs SET poses = -1`,
  audit_log_pkey: `INSERT INTO audit_log (seq, ts, action, job_id, outcome, prev_hash, hash)
    VALUES (1, now(), 'x', '${JOB}', 'ok', repeat('1', 64), repeat('2', 64))`,
  audit_log_hash_key: `INSERT INTO audit_log (seq, ts, action, job_id, outcome, prev_hash, hash)
    VALUES (2, now(), 'x', '${JOB}', 'ok', repeat('1', 64), ${SHA})`,
  audit_log_prev_hash_key: `INSERT INTO audit_log (seq, ts, action, job_id, outcome, prev_hash, hash)
    VALUES (2, now(), 'x', '${JOB}', 'ok', repeat('0', 64), repeat('2', 64))`,
  audit_log_seq_check: `UPDATE audit_log SET seq = 0`,
  audit_log_action_check: `UPDATE audit_log SET action = ''`,
  audit_log_outcome_check: `UPDATE audit_log SET outcome = ''`,
  audit_log_metadata_check: `UPDATE audit_log SET metadata = '[]'`,
  audit_log_prev_hash_check: `UPDATE audit_log SET prev_hash = 'x'`,
  audit_log_hash_check: `UPDATE audit_log SET hash = 'x'`,
};

const suite = schemaSuite({
  schema: 'results',
  migrations: resultsMigrations,
  entities: resultsEntities,
  open: tenantDatabase,
  goodRows: GOOD_ROWS,
  badRows: BAD_ROWS,
  moreObjectsThan: 100,
  personal: [
    'audit_log.user_id',
    'cache_invalidations.created_by',
    'cache_invalidations.undone_by',
    'exports.created_by',
    'jobs.created_by',
    'retention_policies.set_by',
    'retention_runs.started_by',
  ],
  confidential: [
    'cache_invalidations.reason',
    'exports.filter',
    'exports.manifest',
    'jobs.params',
    'result_cache.smiles',
    'task_results.hba',
    'task_results.hbd',
    'task_results.logp',
    'task_results.molecular_weight',
    'task_results.molecule_name',
    'task_results.rotatable_bonds',
    'task_results.smiles',
    'task_results.tpsa',
  ],
});

test('partitions are made by the month of the job, by a login that owns nothing', async () => {
  await onServer(suite.db().url, async (client) => {
    await client.query('SET search_path = results, public');
    const make = (month: string) => client.query('SELECT ensure_partitions($1::date)', [month]);
    await make('2026-11-01');
    await make('2026-11-15');
    await make('2026-12-01');
    await expect(make('2027-11-01')).rejects.toThrow('so far ahead');

    const event = (jobId: string) =>
      client.query(
        `INSERT INTO job_events (job_id, seq_no, event) VALUES ($1, 1, 'x') RETURNING tableoid::regclass AS part`,
        [jobId],
      );
    const at = (iso: string): string => {
      const hex = Date.parse(iso).toString(16).padStart(12, '0');
      return `${hex.slice(0, 8)}-${hex.slice(8)}-7fff-8000-000000000000`;
    };
    // The first and the last millisecond of a month, UTC.
    expect((await event(at('2026-12-01T00:00:00.000Z'))).rows).toEqual([{ part: 'job_events_2026_12' }]);
    expect((await event(at('2026-12-31T23:59:59.999Z'))).rows).toEqual([{ part: 'job_events_2026_12' }]);
    expect((await event(at('2026-11-30T23:59:59.999Z'))).rows).toEqual([{ part: 'job_events_2026_11' }]);
    await expect(event(at('2026-10-31T23:59:59.999Z'))).rejects.toThrow('no partition');
  });
});

test('the login may not make tables, nor change or remove lines of the audit log', async () => {
  await onServer(suite.db().url, async (client) => {
    await client.query('SET search_path = results, public');
    await expect(client.query('CREATE TABLE mine (id int)')).rejects.toThrow('permission denied');
    await expect(client.query('DROP TABLE jobs')).rejects.toThrow('must be owner');
    await expect(client.query(`UPDATE audit_log SET action = 'x'`)).rejects.toThrow('permission denied');
    await expect(client.query('DELETE FROM audit_log')).rejects.toThrow('permission denied');
    await expect(client.query('TRUNCATE audit_log')).rejects.toThrow('permission denied');
  });
});
