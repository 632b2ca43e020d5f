import type { Problem } from './parameter-schema.ts';
import { sortTasks } from './pipeline-graph.ts';
import { dependenciesOf, objectSchema, referenceOf, type PipelineSpec, type SchemaValidator } from './pipeline-spec.ts';
import type { FindDefinition, JsonObject, TaskDefinition } from './task-definition.ts';

/** A parameter of a certain format, which only catalog can resolve further. */
export interface FormattedParameter {
  /** The task's parameter. */
  parameter: string;
  /** Where its value comes from in the request or the spec, for errors. */
  field: string;
  value: string;
}

/** One task of a job with every value it runs with. */
export interface PlannedTask {
  id: string;
  definition: TaskDefinition;
  dependsOn: string[];
  parameters: JsonObject;
  /** Parameters that name artifacts, with the purpose each must have. */
  artifacts: (FormattedParameter & { purpose: string })[];
  /** Parameters that are SMILES. */
  smiles: FormattedParameter[];
}

/** A job's parameters and tasks, or why the values do not fit. */
export type JobPlan = { parameters: JsonObject; tasks: PlannedTask[] } | { problems: Problem[] };

/**
 * What a job of this pipeline does with these parameters: defaults filled in, references replaced, tasks upstream first.
 * A parameter that the pipeline does not declare, one that is missing and one that a schema refuses are named as
 * `parameters.<name>`. The spec must have passed `checkSpec`.
 */
export function planJob(
  spec: PipelineSpec,
  given: JsonObject,
  find: FindDefinition,
  validator: SchemaValidator,
): JobPlan {
  const unknown = Object.keys(given).filter((name) => !Object.hasOwn(spec.parameters, name));
  if (unknown.length > 0) {
    const known = Object.keys(spec.parameters).join(', ') || 'none';
    const description = `the pipeline has no such parameter; it has ${known}`;
    return { problems: unknown.map((name) => ({ field: `parameters.${name}`, description })) };
  }
  const filled = validator.complete(objectSchema(spec.parameters), given);
  if (filled.problems.length > 0) return { problems: filled.problems.map(ofJob) };

  const problems: Problem[] = [];
  const tasks: PlannedTask[] = [];
  for (const [index, task] of spec.tasks.entries()) {
    const definition = find(task.task, task.task_version);
    if (!definition) {
      problems.push({
        field: `spec.tasks[${index}].task`,
        description: `there is no task ${JSON.stringify(task.task)}`,
      });
      continue;
    }
    const fieldOf = (name: string): string => {
      const reference = referenceOf(task.parameters[name]);
      return reference === undefined ? `spec.tasks[${index}].parameters.${name}` : `parameters.${reference}`;
    };
    const values = Object.fromEntries(
      Object.entries(task.parameters).map(([name, value]) => {
        const reference = referenceOf(value);
        return [name, reference === undefined ? value : filled.value[reference]!];
      }),
    );
    const checked = validator.complete(definition.interfaceSpec.parameters, values);
    problems.push(...checked.problems.map((bad) => ({ ...bad, field: fieldOf(bad.field) })));
    tasks.push({
      id: task.id,
      definition,
      dependsOn: dependenciesOf(task),
      parameters: checked.value,
      ...formatted(definition, checked.value, fieldOf),
    });
  }
  if (problems.length > 0) return { problems };
  const sorted = sortTasks(tasks);
  if ('cycle' in sorted) throw new Error(`a checked pipeline has the cycle ${sorted.cycle.join(' → ')}`);
  return { parameters: filled.value, tasks: sorted.order };
}

function ofJob({ field, description }: Problem): Problem {
  return { field: `parameters.${field}`, description };
}

function formatted(
  definition: TaskDefinition,
  values: JsonObject,
  fieldOf: (name: string) => string,
): Pick<PlannedTask, 'artifacts' | 'smiles'> {
  const { properties } = definition.interfaceSpec.parameters;
  const artifacts: PlannedTask['artifacts'] = [];
  const smiles: PlannedTask['smiles'] = [];
  for (const [parameter, value] of Object.entries(values)) {
    const { format, purpose } = properties[parameter] ?? {};
    if (typeof value !== 'string') continue;
    const named = { parameter, field: fieldOf(parameter), value };
    if (format === 'smiles') smiles.push(named);
    if (format === 'artifact') artifacts.push({ ...named, purpose: typeof purpose === 'string' ? purpose : '' });
  }
  return { artifacts, smiles };
}
