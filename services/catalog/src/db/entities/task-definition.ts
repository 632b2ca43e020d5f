import { EntitySchema } from '@mad/postgres';
import type { InterfaceSpec, ServiceConfig, TaskMetadata } from '../../domain/task-definition.ts';

/** What kind of work a task is, as the table spells it. */
export type TaskTypeName = 'docking' | 'analysis' | 'preprocessing' | 'postprocessing' | 'validation';

/** A row of catalog.task_definitions. */
export interface TaskDefinitionRow {
  task_definition_id: string;
  /** Null for those that come with the product. */
  org_id: string | null;
  task_id: string;
  version: string;
  task_type: TaskTypeName;
  engine: string;
  metadata: TaskMetadata;
  interface_spec: InterfaceSpec;
  service_config: ServiceConfig;
  deterministic: boolean;
  cache_version: number;
  is_active: boolean;
  created_at: Date;
  updated_at: Date;
}

export const TaskDefinitionEntity = new EntitySchema<TaskDefinitionRow>({
  name: 'task_definitions',
  schema: 'catalog',
  columns: {
    task_definition_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'task_definitions_pkey',
      default: () => 'gen_random_uuid()',
    },
    org_id: { type: 'uuid', nullable: true },
    task_id: { type: 'text' },
    version: { type: 'text' },
    task_type: {
      type: 'enum',
      enum: ['docking', 'analysis', 'preprocessing', 'postprocessing', 'validation'],
      enumName: 'task_type',
    },
    engine: { type: 'text' },
    metadata: { type: 'jsonb', comment: 'Internal: description, unit and direction of the score' },
    interface_spec: {
      type: 'jsonb',
      comment: 'Internal: types of inputs and outputs, JSON Schema of the parameters',
    },
    service_config: {
      type: 'jsonb',
      comment: 'Internal: items per execution, cores, memory in MiB, preparation recipe',
    },
    deterministic: { type: 'boolean' },
    cache_version: { type: 'integer', comment: 'Internal: raised by hand when results change meaning' },
    is_active: { type: 'boolean', default: true },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
  uniques: [
    {
      name: 'task_definitions_org_id_task_id_version_key',
      columns: ['org_id', 'task_id', 'version'],
    },
  ],
});
