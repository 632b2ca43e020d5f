import { create, type JsonObject } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import {
  PipelineSchema,
  PipelineSpecSchema,
  PipelineTemplateSchema,
  PipelineVersionSchema,
  TaskDefinitionSchema,
  type Pipeline,
  type PipelineSpec as PipelineSpecMessage,
  type PipelineTemplate,
  type PipelineVersion,
  type TaskDefinition as TaskDefinitionMessage,
} from '@mad/proto/catalog';
import type { PipelineRow, PipelineTemplateRow, PipelineVersionRow } from '../db/entities/pipeline.ts';
import type { PipelineSpec } from '../domain/pipeline-spec.ts';
import type { ParameterSchema, TaskDefinition } from '../domain/task-definition.ts';

/** A spec as it is stored. */
export function specOf(message: PipelineSpecMessage): PipelineSpec {
  return {
    version: message.version,
    // What is no schema is found by the spec's check.
    parameters: (message.parameters ?? {}) as Record<string, ParameterSchema>,
    tasks: message.tasks.map((task) => ({
      id: task.id,
      task: task.task,
      task_version: task.taskVersion,
      inputs: { ...task.inputs },
      parameters: task.parameters ?? {},
    })),
  };
}

/** A stored spec as callers see it. */
export function specMessage(spec: PipelineSpec): PipelineSpecMessage {
  return create(PipelineSpecSchema, {
    version: spec.version,
    parameters: spec.parameters,
    tasks: spec.tasks.map((task) => ({
      id: task.id,
      task: task.task,
      taskVersion: task.task_version,
      inputs: task.inputs,
      parameters: task.parameters,
    })),
  });
}

/** A pipeline as callers see it. */
export function pipelineMessage(row: PipelineRow): Pipeline {
  return create(PipelineSchema, {
    pipelineId: row.pipeline_id,
    orgId: row.org_id,
    name: row.name,
    description: row.description,
    latestVersion: row.latest_version,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
  });
}

/** A version as callers see it. */
export function pipelineVersionMessage(row: PipelineVersionRow): PipelineVersion {
  return create(PipelineVersionSchema, {
    pipelineVersionId: row.pipeline_version_id,
    pipelineId: row.pipeline_id,
    version: row.version,
    spec: specMessage(row.spec),
    published: row.published,
    createTime: timestampFromDate(row.created_at),
    publishTime: row.published_at ? timestampFromDate(row.published_at) : undefined,
  });
}

/** A task definition as callers see it. */
export function taskDefinitionMessage(definition: TaskDefinition): TaskDefinitionMessage {
  return create(TaskDefinitionSchema, {
    taskDefinitionId: definition.taskDefinitionId,
    orgId: definition.orgId ?? '',
    taskId: definition.taskId,
    version: definition.version,
    taskType: definition.taskType,
    engine: definition.engine,
    description: definition.metadata.description,
    interfaceSpec: definition.interfaceSpec as unknown as JsonObject,
    deterministic: definition.deterministic,
    cacheVersion: definition.cacheVersion,
    scoreUnits: definition.metadata.score_units,
    lowerIsBetter: definition.metadata.lower_is_better,
  });
}

/** A template as callers see it. */
export function pipelineTemplateMessage(row: PipelineTemplateRow): PipelineTemplate {
  return create(PipelineTemplateSchema, {
    pipelineTemplateId: row.pipeline_template_id,
    name: row.name,
    description: row.description,
    category: row.category,
    spec: specMessage(row.workflow_definition),
  });
}
