import { fits, PARAMETER_NAME, parameterSchemaFault, typeName, type Problem } from './parameter-schema.ts';
import { sortTasks } from './pipeline-graph.ts';
import type {
  FindDefinition,
  Json,
  JsonObject,
  ObjectSchema,
  ParameterSchema,
  TaskDefinition,
} from './task-definition.ts';

/** One task of a pipeline, spelled as it is stored. */
export interface PipelineTask {
  id: string;
  /** The task definition's name. */
  task: string;
  /** The task definition's version; empty until the pipeline is published. */
  task_version: string;
  /** Where each input comes from: `job.molecules` or `<task id>.<output>`. */
  inputs: Record<string, string>;
  /** Values; a string `${name}` takes the job's parameter of that name. */
  parameters: JsonObject;
}

/** What a pipeline does, spelled as it is stored. */
export interface PipelineSpec {
  version: string;
  /** JSON Schemas of the job's parameters, by name; one with a default is optional. */
  parameters: Record<string, ParameterSchema>;
  tasks: PipelineTask[];
}

/** Validates by JSON Schema; the one thing about parameters that needs a library. */
export interface SchemaValidator {
  /** Says what makes a schema no JSON Schema (a text for a minimum …), or undefined. */
  fault(schema: ParameterSchema): string | undefined;
  /** A copy of `value` with defaults filled in, and what is wrong with it; `field` is the parameter's name. */
  complete(schema: ObjectSchema, value: JsonObject): { value: JsonObject; problems: Problem[] };
}

/** What jobs give a pipeline to start with. */
const JOB_OUTPUTS: Record<string, { type: string }> = { molecules: { type: 'molecules' } };
const JOB = 'job';
const REFERENCE = /^\$\{([^}]*)\}$/;

/** The name that a value `${name}` refers to. */
export function referenceOf(value: Json | undefined): string | undefined {
  return typeof value === 'string' ? REFERENCE.exec(value)?.[1] : undefined;
}

/** The ids of the tasks that a task's inputs come from, each once. */
export function dependenciesOf(task: PipelineTask): string[] {
  const sources = Object.values(task.inputs).map((source) => source.slice(0, Math.max(0, source.indexOf('.'))));
  return [...new Set(sources)].filter((id) => id !== JOB && id !== '');
}

/**
 * Everything that keeps a spec from being run, each with its place in the spec (`spec.tasks[0].inputs.molecules`); empty
 * for a good one. Whatever passes here can only fail for the values a job gives.
 */
export function checkSpec(spec: PipelineSpec, find: FindDefinition, validator: SchemaValidator): Problem[] {
  const problems = checkJobParameters(spec, validator);
  const ids = new Set<string>();
  const definitions = new Map<string, TaskDefinition>();
  for (const [index, task] of spec.tasks.entries()) {
    const field = `spec.tasks[${index}]`;
    if (task.id === JOB) problems.push({ field: `${field}.id`, description: '"job" stands for what the job gives' });
    if (ids.has(task.id)) problems.push({ field: `${field}.id`, description: `"${task.id}" is used twice` });
    ids.add(task.id);
    const definition = find(task.task, task.task_version);
    if (definition) definitions.set(task.id, definition);
    else problems.push({ field: `${field}.task`, description: unknownTask(task) });
  }
  for (const [index, task] of spec.tasks.entries()) {
    const definition = definitions.get(task.id);
    if (!definition) continue;
    const field = `spec.tasks[${index}]`;
    problems.push(...checkInputs(field, task, definition, ids, definitions));
    problems.push(...checkTaskParameters(field, task, definition, spec, validator));
  }
  const sorted = sortTasks(spec.tasks.map((task) => ({ id: task.id, dependsOn: dependenciesOf(task) })));
  if ('cycle' in sorted) {
    problems.push({ field: 'spec.tasks', description: `tasks wait for each other: ${sorted.cycle.join(' → ')}` });
  }
  return problems;
}

function unknownTask({ task, task_version: version }: PipelineTask): string {
  const name = JSON.stringify(task);
  return version === '' ? `there is no task ${name}` : `there is no task ${name} in version ${JSON.stringify(version)}`;
}

function checkJobParameters(spec: PipelineSpec, validator: SchemaValidator): Problem[] {
  const problems: Problem[] = [];
  for (const [name, schema] of Object.entries(spec.parameters)) {
    const field = `spec.parameters.${name}`;
    const named = PARAMETER_NAME.test(name);
    const fault = named
      ? (parameterSchemaFault(schema) ?? validator.fault(schema))
      : 'a name has lower-case letters, digits and _, at most 63';
    if (fault !== undefined) {
      problems.push({ field, description: fault });
    } else if (schema['default'] !== undefined) {
      const object = objectSchema({ [name]: schema });
      const bad = validator.complete(object, { [name]: schema['default'] }).problems[0];
      if (bad) problems.push({ field: `${field}.default`, description: bad.description });
    }
  }
  return problems;
}

/** The schema of an object with these members; those with a default may be left out. */
export function objectSchema(properties: Record<string, ParameterSchema>): ObjectSchema {
  const required = Object.keys(properties).filter((name) => properties[name]!['default'] === undefined);
  return { type: 'object', properties, required, additionalProperties: false };
}

function checkInputs(
  field: string,
  task: PipelineTask,
  definition: TaskDefinition,
  ids: ReadonlySet<string>,
  definitions: ReadonlyMap<string, TaskDefinition>,
): Problem[] {
  const problems: Problem[] = [];
  const { inputs } = definition.interfaceSpec;
  for (const name of Object.keys(inputs)) {
    if (Object.hasOwn(task.inputs, name)) continue;
    problems.push({ field: `${field}.inputs`, description: `the input "${name}" of task "${task.id}" is missing` });
  }
  for (const [name, source] of Object.entries(task.inputs)) {
    const at = (description: string): unknown => problems.push({ field: `${field}.inputs.${name}`, description });
    if (!Object.hasOwn(inputs, name)) {
      at(`${definition.taskId} has no input "${name}"`);
      continue;
    }
    const dot = source.indexOf('.');
    const [from, output] = [source.slice(0, Math.max(0, dot)), source.slice(dot + 1)];
    const outputs = from === JOB ? JOB_OUTPUTS : definitions.get(from)?.interfaceSpec.outputs;
    if (!outputs) {
      // A task of unknown definition is reported at its own place.
      if (!ids.has(from)) at(`${JSON.stringify(source)} names no task of this pipeline`);
    } else if (!Object.hasOwn(outputs, output)) {
      at(`${JSON.stringify(from)} has no output ${JSON.stringify(output)}`);
    } else if (outputs[output]!.type !== inputs[name]!.type) {
      at(`the input "${name}" of task "${task.id}" takes ${inputs[name]!.type}, not ${outputs[output]!.type}`);
    }
  }
  return problems;
}

function checkTaskParameters(
  field: string,
  task: PipelineTask,
  definition: TaskDefinition,
  spec: PipelineSpec,
  validator: SchemaValidator,
): Problem[] {
  const problems: Problem[] = [];
  const { properties, required = [] } = definition.interfaceSpec.parameters;
  const values: JsonObject = {};
  for (const [name, value] of Object.entries(task.parameters)) {
    const at = (description: string): unknown => problems.push({ field: `${field}.parameters.${name}`, description });
    const target = Object.hasOwn(properties, name) ? properties[name] : undefined;
    const reference = referenceOf(value);
    if (!target) {
      at(`${definition.taskId} has no parameter "${name}"`);
    } else if (reference !== undefined) {
      const source = Object.hasOwn(spec.parameters, reference) ? spec.parameters[reference] : undefined;
      if (!source) at(`the pipeline declares no parameter ${JSON.stringify(reference)}`);
      else if (parameterSchemaFault(source) === undefined && !fits(source, target)) {
        at(`takes ${typeName(target)}, not ${typeName(source)} of "${reference}"`);
      }
    } else if (typeof value === 'string' && value.includes('${')) {
      at('a reference is the whole value: "${name}"');
    } else {
      values[name] = value;
    }
  }
  const given: ObjectSchema = { type: 'object', properties, additionalProperties: false };
  for (const bad of validator.complete(given, values).problems) {
    problems.push({ field: `${field}.parameters.${bad.field}`, description: bad.description });
  }
  for (const name of required) {
    if (Object.hasOwn(task.parameters, name)) continue;
    problems.push({ field: `${field}.parameters`, description: `${definition.taskId} needs the parameter "${name}"` });
  }
  return problems;
}

/** The spec with every task's version filled in: what "the newest" was when it was published. */
export function pinVersions(spec: PipelineSpec, find: FindDefinition): PipelineSpec {
  const tasks = spec.tasks.map((task) => ({
    ...task,
    task_version: find(task.task, task.task_version)?.version ?? task.task_version,
  }));
  return { ...spec, tasks };
}
