import { EntitySchema } from '@mad/postgres';
import type { PipelineSpec } from '../../domain/pipeline-spec.ts';

/** A row of catalog.pipelines. */
export interface PipelineRow {
  pipeline_id: string;
  org_id: string;
  name: string;
  description: string;
  latest_version: number;
  visibility: 'private' | 'organization' | 'public';
  created_by: string;
  created_at: Date;
  updated_at: Date;
}

export const PipelineEntity = new EntitySchema<PipelineRow>({
  name: 'pipelines',
  schema: 'catalog',
  columns: {
    pipeline_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'pipelines_pkey',
      default: () => 'gen_random_uuid()',
    },
    org_id: { type: 'uuid' },
    name: { type: 'text', comment: 'Confidential: unique in the organization' },
    description: { type: 'text', default: '', comment: 'Confidential: free text' },
    latest_version: { type: 'integer', default: 0, comment: 'Internal: the newest published version, 0 when none' },
    visibility: {
      type: 'enum',
      enum: ['private', 'organization', 'public'],
      enumName: 'visibility',
      default: 'organization',
      comment: 'Internal: public ones are readable, and runnable, by every organization',
    },
    created_by: { type: 'uuid', comment: 'PII: the user who created it' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
  uniques: [{ name: 'pipelines_org_id_name_key', columns: ['org_id', 'name'] }],
});

/** A row of catalog.pipeline_versions. */
export interface PipelineVersionRow {
  pipeline_version_id: string;
  org_id: string;
  pipeline_id: string;
  version: number;
  spec: PipelineSpec;
  published: boolean;
  published_at: Date | null;
  deprecated_at: Date | null;
  created_by: string;
  created_at: Date;
}

export const PipelineVersionEntity = new EntitySchema<PipelineVersionRow>({
  name: 'pipeline_versions',
  schema: 'catalog',
  columns: {
    pipeline_version_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'pipeline_versions_pkey',
      default: () => 'gen_random_uuid()',
    },
    org_id: { type: 'uuid' },
    pipeline_id: { type: 'uuid' },
    version: { type: 'integer' },
    spec: { type: 'jsonb', comment: 'Confidential: the tasks and how they hang together' },
    published: { type: 'boolean', default: false },
    published_at: { type: 'timestamptz', precision: 3, nullable: true },
    deprecated_at: { type: 'timestamptz', precision: 3, nullable: true },
    created_by: { type: 'uuid', comment: 'PII: the user who created it' },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
  uniques: [{ name: 'pipeline_versions_pipeline_id_version_key', columns: ['pipeline_id', 'version'] }],
});

/** A row of catalog.pipeline_templates. */
export interface PipelineTemplateRow {
  pipeline_template_id: string;
  name: string;
  description: string;
  category: string;
  workflow_definition: PipelineSpec;
  default_parameters: Record<string, unknown>;
  created_at: Date;
  updated_at: Date;
}

export const PipelineTemplateEntity = new EntitySchema<PipelineTemplateRow>({
  name: 'pipeline_templates',
  schema: 'catalog',
  columns: {
    pipeline_template_id: {
      type: 'uuid',
      primary: true,
      primaryKeyConstraintName: 'pipeline_templates_pkey',
      default: () => 'gen_random_uuid()',
    },
    name: { type: 'text' },
    description: { type: 'text' },
    category: { type: 'text' },
    workflow_definition: { type: 'jsonb' },
    default_parameters: { type: 'jsonb', default: {} },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
  uniques: [{ name: 'pipeline_templates_name_key', columns: ['name'] }],
});
