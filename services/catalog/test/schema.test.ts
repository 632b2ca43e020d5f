import { metadataDatabase, schemaSuite } from '@mad/testing';
import { catalogEntities, catalogMigrations } from '../src/index.ts';

const ORG = '01900000-0000-7000-8000-000000000001';
const USER = '01900000-0000-7000-8000-000000000002';
const ONE = '01900000-0000-7000-8000-000000000003';
const TWO = '01900000-0000-7000-8000-000000000004';
const NOBODY = '01900000-0000-7000-8000-0000000000ff';
const HASH = 'a'.repeat(64);

const MOLECULE = `org_id, molecule_id, name, smiles, canonical_smiles, formula, molecular_weight, properties, fingerprint, normalizer, created_by`;
const molecule = (id: string, smiles: string) =>
  `INSERT INTO molecules (${MOLECULE}) VALUES ('${ORG}', '${id}', 'methane', '${smiles}', '${smiles}', 'CH4', 16.043, '{}',
     decode(repeat('00', 256), 'hex'), 'rdkit 1', '${USER}')`;
const ARTIFACT = `org_id, artifact_id, purpose, name, content_type, uri, size_bytes, sha256, created_by`;
const artifact = (id: string, sha256: string) =>
  `INSERT INTO artifacts (${ARTIFACT}) VALUES ('${ORG}', '${id}', 'other', 'n', 'text/plain', 'orgs/x', 1, '${sha256}', '${USER}')`;
const definition = (id: string, version: string) =>
  `INSERT INTO task_definitions (task_definition_id, task_id, version, task_type, engine, metadata, interface_spec, service_config, deterministic, cache_version)
   VALUES ('${id}', 'a.b', '${version}', 'analysis', 'e@1', '{}', '{"inputs": {}, "outputs": {}, "parameters": {}}', '{}', true, 1)`;
const pipeline = (id: string, name: string) =>
  `INSERT INTO pipelines (pipeline_id, org_id, name, created_by) VALUES ('${id}', '${ORG}', '${name}', '${USER}')`;
const version = (id: string, pipelineId: string, number: number) =>
  `INSERT INTO pipeline_versions (pipeline_version_id, org_id, pipeline_id, version, spec, created_by)
   VALUES ('${id}', '${ORG}', '${pipelineId}', ${number}, '{"version": "1", "tasks": []}', '${USER}')`;
const template = (id: string, name: string) =>
  `INSERT INTO pipeline_templates (pipeline_template_id, name, description, category, workflow_definition) VALUES ('${id}', '${name}', '', 'c', '{}')`;
const set = (id: string, name: string) =>
  `INSERT INTO molecule_sets (org_id, molecule_set_id, name, created_by) VALUES ('${ORG}', '${id}', '${name}', '${USER}')`;
const member = (setId: string, itemNo: number, moleculeId: string) =>
  `INSERT INTO molecule_set_members VALUES ('${ORG}', '${setId}', ${itemNo}, '${moleculeId}')`;
const key = `INSERT INTO idempotency_keys (org_id, method, request_id, payload_hash, field_hashes, expires_at) VALUES ('${ORG}', 'm', '${ORG}', '\\x00', '{}', now())`;
const job = (id: string, set: string) =>
  `INSERT INTO jobs_meta (job_id, org_id, pipeline_id, pipeline_version_id, molecule_set_id, parameters, plan, input_count,
     planned_tasks, created_by) VALUES ('${id}', '${ORG}', '${ONE}', '${ONE}', '${set}', '{}', '[]', 1, 1, '${ONE}')`;
const orgQueue = (org: string) =>
  `INSERT INTO org_queue (org_id, max_running, max_concurrent_jobs) VALUES ('${org}', 1, 1)`;
const depth = (org: string) => `INSERT INTO org_queue_depth VALUES ('${org}', 'e@1', 1, 1, 0)`;
const task = (id: string, org: string, jobId: string) =>
  `INSERT INTO task_queue (task_execution_id, org_id, job_id, engine, cores, memory_mb) VALUES ('${id}', '${org}', '${jobId}', 'e@1', 1, 1)`;

/** Rows that are right, for the others to collide with and refer to. */
const GOOD_ROWS = [
  molecule(ONE, 'C'),
  `INSERT INTO org_usage (org_id) VALUES ('${ORG}')`,
  set(ONE, 'library'),
  member(ONE, 1, ONE),
  artifact(ONE, HASH),
  definition(ONE, '1'),
  pipeline(ONE, 'p'),
  version(ONE, ONE, 1),
  template(ONE, 't'),
  key,
  job(ONE, ONE),
  orgQueue(ORG),
  orgQueue(TWO),
  depth(ORG),
  task(ONE, ORG, ONE),
  `INSERT INTO erasures (org_id) VALUES ('${ORG}')`,
].join(';\n');

/** An UPDATE of the right row, or an INSERT beside it, that breaks the constraint of that name and no other. */
const BAD_ROWS: Record<string, string> = {
  smiles_string_length_check: `UPDATE molecules SET smiles = repeat('C', 601)`,
  smiles_string_characters_check: `UPDATE molecules SET canonical_smiles = 'C C'`,
  molecular_weight_check: `UPDATE molecules SET molecular_weight = 10000`,
  molecules_pkey: molecule(ONE, 'CC'),
  molecules_org_id_canonical_smiles_key: molecule(NOBODY, 'C'),
  molecules_name_check: `UPDATE molecules SET name = ''`,
  molecules_synonyms_check: `UPDATE molecules SET synonyms = array_fill('x'::text, ARRAY[101])`,
  molecules_description_check: `UPDATE molecules SET description = repeat('x', 10001)`,
  molecules_inchikey_check: `UPDATE molecules SET inchikey = 'InChI=1S/CH4/h1H4'`,
  molecules_formula_check: `UPDATE molecules SET formula = ''`,
  molecules_uri_check: `UPDATE molecules SET uri = ''`,
  molecules_size_bytes_check: `UPDATE molecules SET size_bytes = 0`,
  molecules_checksum_check: `UPDATE molecules SET checksum = 'md5'`,
  valid_properties: `UPDATE molecules SET properties = '[]'`,
  molecules_fingerprint_check: `UPDATE molecules SET fingerprint = '\\x00'`,
  molecules_normalizer_check: `UPDATE molecules SET normalizer = ''`,
  org_usage_pkey: `INSERT INTO org_usage (org_id) VALUES ('${ORG}')`,
  org_usage_molecules_check: 'UPDATE org_usage SET molecules = -1',
  org_usage_artifact_bytes_check: 'UPDATE org_usage SET artifact_bytes = -1',
  molecule_sets_pkey: set(ONE, 'other'),
  molecule_sets_org_id_name_key: set(NOBODY, 'library'),
  molecule_sets_name_check: `UPDATE molecule_sets SET name = repeat('x', 256)`,
  molecule_sets_size_check: 'UPDATE molecule_sets SET size = -1',
  molecule_set_members_pkey: member(ONE, 1, ONE),
  molecule_set_members_molecule_set_id_fkey: member(NOBODY, 1, ONE),
  molecule_set_members_molecule_id_fkey: member(ONE, 2, NOBODY),
  molecule_set_members_item_no_check: member(ONE, 0, ONE),
  artifacts_pkey: artifact(ONE, 'b'.repeat(64)),
  artifacts_org_id_purpose_sha256_key: artifact(NOBODY, HASH),
  artifacts_purpose_check: `UPDATE artifacts SET purpose = 'fun'`,
  artifacts_name_check: `UPDATE artifacts SET name = ''`,
  artifacts_content_type_check: `UPDATE artifacts SET content_type = ''`,
  artifacts_uri_check: `UPDATE artifacts SET uri = ''`,
  artifacts_size_bytes_check: 'UPDATE artifacts SET size_bytes = 0',
  artifacts_sha256_check: `UPDATE artifacts SET sha256 = 'A'`,
  task_definitions_pkey: definition(ONE, '2'),
  task_definitions_org_id_task_id_version_key: definition(NOBODY, '1'),
  task_definitions_task_id_check: `UPDATE task_definitions SET task_id = 'dock'`,
  task_definitions_version_check: `UPDATE task_definitions SET version = '01'`,
  task_definitions_engine_check: `UPDATE task_definitions SET engine = 'vina'`,
  task_definitions_metadata_check: `UPDATE task_definitions SET metadata = '[]'`,
  task_definitions_interface_spec_check: `UPDATE task_definitions SET interface_spec = '{"inputs": {}}'`,
  task_definitions_service_config_check: `UPDATE task_definitions SET service_config = '1'`,
  task_definitions_cache_version_check: 'UPDATE task_definitions SET cache_version = 0',
  pipelines_pkey: pipeline(ONE, 'other').replace(`'${ORG}'`, `'${NOBODY}'`),
  pipelines_org_id_pipeline_id_key: `ALTER TABLE pipelines DROP CONSTRAINT pipelines_pkey CASCADE; ${pipeline(ONE, 'other')}`,
  pipelines_org_id_name_key: pipeline(NOBODY, 'p'),
  pipelines_name_check: `UPDATE pipelines SET name = ''`,
  pipelines_description_check: `UPDATE pipelines SET description = repeat('x', 10001)`,
  pipelines_latest_version_check: 'UPDATE pipelines SET latest_version = -1',
  pipeline_versions_pkey: version(ONE, ONE, 2),
  pipeline_versions_pipeline_id_version_key: version(NOBODY, ONE, 1),
  pipeline_versions_pipeline_id_fkey: version(NOBODY, NOBODY, 1),
  pipeline_versions_version_check: 'UPDATE pipeline_versions SET version = 0',
  pipeline_versions_spec_check: `UPDATE pipeline_versions SET spec = '{"version": "1"}'`,
  pipeline_versions_published_check: 'UPDATE pipeline_versions SET published = true',
  pipeline_versions_deprecated_at_check: 'UPDATE pipeline_versions SET deprecated_at = now()',
  pipeline_templates_pkey: template(ONE, 'other'),
  pipeline_templates_name_key: template(NOBODY, 't'),
  pipeline_templates_name_check: `UPDATE pipeline_templates SET name = ''`,
  pipeline_templates_category_check: `UPDATE pipeline_templates SET category = 'Not a word'`,
  pipeline_templates_workflow_definition_check: `UPDATE pipeline_templates SET workflow_definition = '[]'`,
  pipeline_templates_default_parameters_check: `UPDATE pipeline_templates SET default_parameters = '[]'`,
  idempotency_keys_pkey: key,
  idempotency_keys_field_hashes_check: `UPDATE idempotency_keys SET field_hashes = '[]'`,
  jobs_meta_pkey: job(ONE, ONE).replace(`'${ORG}'`, `'${NOBODY}'`),
  // The same organization and id is the same id: the key is what task_queue refers to.
  jobs_meta_org_id_job_id_key: `ALTER TABLE task_queue DROP CONSTRAINT task_queue_job_id_fkey;
    ALTER TABLE jobs_meta DROP CONSTRAINT jobs_meta_pkey; ${job(ONE, ONE)}`,
  jobs_meta_molecule_set_id_fkey: job(TWO, NOBODY),
  jobs_meta_name_check: `UPDATE jobs_meta SET name = repeat('x', 256)`,
  jobs_meta_detail_check: `UPDATE jobs_meta SET detail = repeat('x', 4001)`,
  jobs_meta_priority_check: `UPDATE jobs_meta SET priority = 11`,
  jobs_meta_labels_check: `UPDATE jobs_meta SET labels = '[]'`,
  jobs_meta_parameters_check: `UPDATE jobs_meta SET parameters = '1'`,
  jobs_meta_plan_check: `UPDATE jobs_meta SET plan = '{}'`,
  jobs_meta_cache_policy_check: `UPDATE jobs_meta SET cache_policy = 'sometimes'`,
  jobs_meta_max_age_s_check: `UPDATE jobs_meta SET max_age_s = -1`,
  jobs_meta_min_confidence_check: `UPDATE jobs_meta SET min_confidence = 1.1`,
  jobs_meta_input_count_check: `UPDATE jobs_meta SET input_count = 0`,
  jobs_meta_planned_tasks_check: `UPDATE jobs_meta SET planned_tasks = 0`,
  jobs_meta_counters_check: `UPDATE jobs_meta SET requested = 2, scored = 1`,
  jobs_meta_event_seq_check: `UPDATE jobs_meta SET event_seq = -1`,
  jobs_meta_materialized_at_check: `UPDATE jobs_meta SET materialized_at = now()`,
  jobs_meta_cancel_requested_by_check: `UPDATE jobs_meta SET cancel_requested_by = created_by`,
  jobs_meta_ended_at_check: `UPDATE jobs_meta SET status = 'completed'`,
  erasures_pkey: `INSERT INTO erasures (org_id) VALUES ('${ORG}')`,
  erasures_counts_check: `UPDATE erasures SET counts = '[]'`,
  org_queue_pkey: orgQueue(ORG),
  org_queue_queued_check: `UPDATE org_queue SET queued = -1`,
  org_queue_running_check: `UPDATE org_queue SET running = -1`,
  org_queue_max_running_check: `UPDATE org_queue SET max_running = -1`,
  org_queue_max_concurrent_jobs_check: `UPDATE org_queue SET max_concurrent_jobs = -1`,
  org_queue_weight_check: `UPDATE org_queue SET weight = 0`,
  org_queue_vtime_check: `UPDATE org_queue SET vtime = 'NaN'`,
  org_queue_depth_pkey: depth(ORG),
  org_queue_depth_org_id_fkey: depth(NOBODY),
  org_queue_depth_queued_check: `UPDATE org_queue_depth SET queued = -1`,
  jobs_meta_core_ms_check: `UPDATE jobs_meta SET core_ms = -1`,
  jobs_meta_saved_core_ms_check: `UPDATE jobs_meta SET saved_core_ms = -1`,
  jobs_meta_traceparent_check: `UPDATE jobs_meta SET traceparent = '00-abc'`,
  task_queue_traceparent_check: `UPDATE task_queue SET traceparent = 'x'`,
  task_queue_pkey: task(ONE, ORG, ONE),
  task_queue_job_id_fkey: task(TWO, TWO, ONE),
  task_queue_org_id_fkey: `ALTER TABLE task_queue DROP CONSTRAINT task_queue_job_id_fkey; ${task(TWO, NOBODY, ONE)}`,
  task_queue_engine_check: `UPDATE task_queue SET engine = ''`,
  task_queue_cores_check: `UPDATE task_queue SET cores = 0`,
  task_queue_memory_mb_check: `UPDATE task_queue SET memory_mb = 0`,
  task_queue_priority_check: `UPDATE task_queue SET priority = -11`,
  task_queue_state_check: `UPDATE task_queue SET state = 'lost'`,
  task_queue_attempt_check: `UPDATE task_queue SET attempt = -1, losses = -1`,
  task_queue_losses_check: `UPDATE task_queue SET losses = 1`,
  task_queue_lease_check: `UPDATE task_queue SET state = 'leased'`,
  task_queue_not_before_check: `UPDATE task_queue SET state = 'delayed'`,
};

schemaSuite({
  schema: 'catalog',
  migrations: catalogMigrations,
  entities: catalogEntities,
  open: (migrations) => metadataDatabase({ services: [{ schema: 'catalog', migrations }] }),
  goodRows: GOOD_ROWS,
  badRows: BAD_ROWS,
  moreObjectsThan: 100,
  personal: [
    'artifacts.created_by',
    'jobs_meta.cancel_requested_by',
    'jobs_meta.created_by',
    'molecule_sets.created_by',
    'molecules.created_by',
    'pipeline_versions.created_by',
    'pipelines.created_by',
  ],
  confidential: [
    'artifacts.name',
    'artifacts.sha256',
    'idempotency_keys.response',
    'jobs_meta.detail',
    'jobs_meta.labels',
    'jobs_meta.name',
    'jobs_meta.parameters',
    'jobs_meta.plan',
    'molecule_sets.name',
    'molecule_sets.size',
    'molecules.canonical_smiles',
    'molecules.description',
    'molecules.fingerprint',
    'molecules.inchikey',
    'molecules.name',
    'molecules.properties',
    'molecules.search',
    'molecules.smiles',
    'molecules.synonyms',
    'molecules.uri',
    'pipeline_versions.spec',
    'pipelines.description',
    'pipelines.name',
  ],
});
