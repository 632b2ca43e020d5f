import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { builtInTasks } from './domain/built-in-tasks.ts';
import { builtInTemplates } from './domain/built-in-templates.ts';

/** How many rows a seeding made and how many it found. */
export interface Seeded {
  created: number;
  existing: number;
}

/**
 * Makes what every installation has, and brings what is there to what this version of the product says (another RDKit
 * is another engine). A repeat changes nothing. Needs the second login.
 */
export async function seedCatalog(tx: Tx, rdkitVersion: string): Promise<Seeded> {
  // Two services that start at the same time would both find nothing.
  await tx.execute(`SELECT pg_advisory_xact_lock(hashtext('mad.catalog.seed'))`);
  const seeded: Seeded = { created: 0, existing: 0 };
  const count = ([row]: { created: boolean }[]): void => {
    if (row?.created) seeded.created += 1;
    else seeded.existing += 1;
  };
  for (const task of builtInTasks(rdkitVersion)) {
    count(
      await tx.query(
        `INSERT INTO catalog.task_definitions AS d (task_definition_id, org_id, task_id, version, task_type, engine,
           metadata, interface_spec, service_config, deterministic, cache_version)
         VALUES ($1, NULL, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (org_id, task_id, version) DO UPDATE SET task_type = excluded.task_type, engine = excluded.engine,
           metadata = excluded.metadata, interface_spec = excluded.interface_spec,
           service_config = excluded.service_config, deterministic = excluded.deterministic,
           cache_version = excluded.cache_version, updated_at = now()
         WHERE (d.task_type, d.engine, d.metadata, d.interface_spec, d.service_config, d.deterministic, d.cache_version)
           IS DISTINCT FROM (excluded.task_type, excluded.engine, excluded.metadata, excluded.interface_spec,
             excluded.service_config, excluded.deterministic, excluded.cache_version)
         RETURNING xmax = 0 AS created`,
        [
          uuidv7(),
          task.taskId,
          task.version,
          task.taskType,
          task.engine,
          JSON.stringify(task.metadata),
          JSON.stringify(task.interfaceSpec),
          JSON.stringify(task.serviceConfig),
          task.deterministic,
          task.cacheVersion,
        ],
      ),
    );
  }
  for (const template of builtInTemplates) {
    count(
      await tx.query(
        `INSERT INTO catalog.pipeline_templates AS t
           (pipeline_template_id, name, description, category, workflow_definition, default_parameters)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (name) DO UPDATE SET description = excluded.description, category = excluded.category,
           workflow_definition = excluded.workflow_definition, default_parameters = excluded.default_parameters,
           updated_at = now()
         WHERE (t.description, t.category, t.workflow_definition, t.default_parameters)
           IS DISTINCT FROM (excluded.description, excluded.category, excluded.workflow_definition, excluded.default_parameters)
         RETURNING xmax = 0 AS created`,
        [
          uuidv7(),
          template.name,
          template.description,
          template.category,
          JSON.stringify(template.spec),
          JSON.stringify(template.defaultParameters),
        ],
      ),
    );
  }
  return seeded;
}
