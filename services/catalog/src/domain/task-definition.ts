/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | JsonObject;

/** A JSON object. */
export interface JsonObject {
  [name: string]: Json;
}

/** The JSON Schema of one parameter (see parameter-schema.ts for what it may say). */
export type ParameterSchema = JsonObject;

/** A JSON Schema of an object with named parameters and no others. */
export interface ObjectSchema {
  type: 'object';
  properties: Record<string, ParameterSchema>;
  required?: string[];
  additionalProperties: false;
}

/** What flows along an edge of a pipeline: `molecules` or what a task makes of them. */
export interface Port {
  type: string;
}

/** What a task takes and gives. */
export interface InterfaceSpec {
  inputs: Record<string, Port>;
  outputs: Record<string, Port>;
  parameters: ObjectSchema;
}

/** What people are told of a task. */
export interface TaskMetadata {
  description: string;
  /** Empty where the task gives no score. */
  score_units: string;
  lower_is_better: boolean;
}

/** What running a task costs, and how inputs are prepared for it. */
export interface ServiceConfig {
  /** Items per task execution. */
  chunk_size: number;
  cores: number;
  /** MiB. */
  memory_mb: number;
  /** Part of every signature, e.g. `openchemlib-9.25+obabel-3.1.1`. */
  recipe: string;
}

/** A task definition as the rules see it. */
export interface TaskDefinition {
  taskDefinitionId: string;
  /** Null for those that come with the product. */
  orgId: string | null;
  /** E.g. `vina.dock`. */
  taskId: string;
  /** A whole number from 1, as text. */
  version: string;
  taskType: 'docking' | 'analysis' | 'preprocessing' | 'postprocessing' | 'validation';
  /** The engine with its version, e.g. `vina@1.2.3`. */
  engine: string;
  metadata: TaskMetadata;
  interfaceSpec: InterfaceSpec;
  serviceConfig: ServiceConfig;
  deterministic: boolean;
  cacheVersion: number;
}

/** The definition of a task in a version, or in its newest where the version is empty. */
export type FindDefinition = (taskId: string, version: string) => TaskDefinition | undefined;

/** Looks definitions up in a list. */
export function definitionFinder(definitions: readonly TaskDefinition[]): FindDefinition {
  const newestFirst = definitions.toSorted((a, b) => Number(b.version) - Number(a.version));
  return (taskId, version) =>
    newestFirst.find(
      (definition) => definition.taskId === taskId && (version === '' || definition.version === version),
    );
}
