import { readThrough, type Cache } from '@mad/cache';
import type { Database, Tx } from '@mad/postgres';
import { SECOND_MS, type Logger, type Metrics } from '@mad/process';
import type { TaskDefinitionRow } from './db/entities/task-definition.ts';
import { definitionFinder, type FindDefinition, type TaskDefinition } from './domain/task-definition.ts';

/** How long a definition that was added or retired may go unnoticed. */
const KEEP_MS = 30 * SECOND_MS;

/** The columns of a task definition, without `SELECT *`. */
export const TASK_DEFINITION_COLUMNS = `task_definition_id, org_id, task_id, version, task_type, engine, metadata,
  interface_spec, service_config, deterministic, cache_version`;

/** The task definitions an organization may use: the product's and its own. */
export interface TaskDefinitions {
  /** Finds definitions by name and version, at most 30 s old. */
  of(orgId: string): Promise<FindDefinition>;
  /** Drops what is remembered of an organization. */
  forget(orgId: string): Promise<void>;
}

/** A row as the rules see it. */
export function taskDefinition(row: TaskDefinitionRow): TaskDefinition {
  return {
    taskDefinitionId: row.task_definition_id,
    orgId: row.org_id,
    taskId: row.task_id,
    version: row.version,
    taskType: row.task_type,
    engine: row.engine,
    metadata: row.metadata,
    interfaceSpec: row.interface_spec,
    serviceConfig: row.service_config,
    deterministic: row.deterministic,
    cacheVersion: row.cache_version,
  };
}

async function readDefinitions(tx: Tx, orgId: string): Promise<TaskDefinition[]> {
  const rows = await tx.query<TaskDefinitionRow>(
    `SELECT ${TASK_DEFINITION_COLUMNS} FROM catalog.task_definitions
     WHERE (org_id = $1 OR org_id IS NULL) AND is_active ORDER BY task_id, version`,
    [orgId],
  );
  return rows.map(taskDefinition);
}

/** Reads task definitions through the cache, each organization's under a key of its own. */
export function taskDefinitionsIn(
  database: Database,
  options: { cache: Cache; logger: Logger; metrics?: Metrics },
): TaskDefinitions {
  const { cache, metrics, logger } = options;
  const known = readThrough<TaskDefinition[]>(cache, {
    name: 'catalog_task_definitions',
    ttlMs: KEEP_MS,
    load: (orgId) => database.inOrg(orgId, (tx) => readDefinitions(tx, orgId), { readOnly: true }),
    metrics,
    logger,
  });
  return {
    of: async (orgId) => definitionFinder(await known.get(orgId)),
    forget: (orgId) => known.forget(orgId),
  };
}
