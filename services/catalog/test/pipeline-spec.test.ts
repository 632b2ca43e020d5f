import { describe, expect, test } from '@jest/globals';
import { builtInTasks } from '../src/domain/built-in-tasks.ts';
import { builtInTemplates } from '../src/domain/built-in-templates.ts';
import { planJob } from '../src/domain/job-plan.ts';
import { sortTasks } from '../src/domain/pipeline-graph.ts';
import { checkSpec, pinVersions, type PipelineSpec, type PipelineTask } from '../src/domain/pipeline-spec.ts';
import { definitionFinder, type JsonObject, type TaskDefinition } from '../src/domain/task-definition.ts';
import { schemaValidator } from '../src/schema-validator.ts';

const definitions: TaskDefinition[] = builtInTasks('2026.09.1').map((task) => ({
  ...task,
  taskDefinitionId: `id of ${task.taskId}`,
  orgId: null,
}));
const find = definitionFinder(definitions);
const validator = schemaValidator();

function task(id: string, change: Partial<PipelineTask> = {}): PipelineTask {
  return {
    id,
    task: 'rdkit.properties',
    task_version: '',
    inputs: { molecules: 'job.molecules' },
    parameters: {},
    ...change,
  };
}

function spec(tasks: PipelineTask[], parameters: PipelineSpec['parameters'] = {}): PipelineSpec {
  return { version: '1', parameters, tasks };
}

const check = (one: PipelineSpec) =>
  checkSpec(one, find, validator).map(({ field, description }) => `${field}: ${description}`);

const similarity = (id: string, reference: JsonObject[string], molecules = 'job.molecules') =>
  task(id, { task: 'rdkit.similarity', inputs: { molecules }, parameters: { reference } });

describe('a spec', () => {
  test('of a chain and of every template is good', () => {
    expect(check(spec([similarity('rank', 'CCO', 'filter.molecules'), task('filter')]))).toEqual([]);
    for (const template of builtInTemplates) expect(check(template.spec)).toEqual([]);
  });

  test.each<[string, PipelineSpec, string[]]>([
    [
      'a cycle',
      spec([
        task('a', { inputs: { molecules: 'c.molecules' } }),
        task('b', { inputs: { molecules: 'a.molecules' } }),
        task('c', { inputs: { molecules: 'b.molecules' } }),
      ]),
      ['spec.tasks: tasks wait for each other: a → c → b → a'],
    ],
    [
      'a task that waits for itself',
      spec([task('a', { inputs: { molecules: 'a.molecules' } })]),
      ['spec.tasks: tasks wait for each other: a → a'],
    ],
    ['an id used twice', spec([task('a'), task('a')]), ['spec.tasks[1].id: "a" is used twice']],
    ['the id "job"', spec([task('job')]), ['spec.tasks[0].id: "job" stands for what the job gives']],
    [
      'an unknown task',
      spec([task('a', { task: 'gaussian.opt' })]),
      ['spec.tasks[0].task: there is no task "gaussian.opt"'],
    ],
    [
      'an unknown version',
      spec([task('a', { task_version: '7' })]),
      ['spec.tasks[0].task: there is no task "rdkit.properties" in version "7"'],
    ],
    [
      'a missing input',
      spec([task('a', { inputs: {} })]),
      ['spec.tasks[0].inputs: the input "molecules" of task "a" is missing'],
    ],
    [
      'an input the task does not have',
      spec([task('a', { inputs: { molecules: 'job.molecules', receptor: 'job.molecules' } })]),
      ['spec.tasks[0].inputs.receptor: rdkit.properties has no input "receptor"'],
    ],
    [
      'a source that is no task',
      spec([task('a', { inputs: { molecules: 'b.molecules' } })]),
      ['spec.tasks[0].inputs.molecules: "b.molecules" names no task of this pipeline'],
    ],
    [
      'a source that is no output',
      spec([task('a'), task('b', { inputs: { molecules: 'a.poses' } })]),
      ['spec.tasks[1].inputs.molecules: "a" has no output "poses"'],
    ],
    [
      'an output of another type',
      spec([similarity('a', 'C'), task('b', { inputs: { molecules: 'a.scores' } })]),
      ['spec.tasks[1].inputs.molecules: the input "molecules" of task "b" takes molecules, not scores'],
    ],
    [
      'an unknown parameter',
      spec([task('a', { parameters: { radius: 2 } })]),
      ['spec.tasks[0].parameters.radius: rdkit.properties has no parameter "radius"'],
    ],
    [
      'a missing parameter',
      spec([task('a', { task: 'rdkit.similarity' })]),
      ['spec.tasks[0].parameters: rdkit.similarity needs the parameter "reference"'],
    ],
    [
      'a reference to nothing',
      spec([similarity('a', '${reference}')]),
      ['spec.tasks[0].parameters.reference: the pipeline declares no parameter "reference"'],
    ],
    [
      'a reference in a text',
      spec([similarity('a', 'C${reference}C')], { reference: { type: 'string' } }),
      ['spec.tasks[0].parameters.reference: a reference is the whole value: "${name}"'],
    ],
    [
      'a reference of another type',
      spec([similarity('a', '${n}')], { n: { type: 'integer' } }),
      ['spec.tasks[0].parameters.reference: takes smiles, not integer of "n"'],
    ],
    ['a value of another type', spec([similarity('a', 7)]), ['spec.tasks[0].parameters.reference: must be string']],
    [
      'a value that is no SMILES',
      spec([similarity('a', 'C\u041e')]),
      ['spec.tasks[0].parameters.reference: must be a SMILES: printable ASCII without blanks, at most 600 characters'],
    ],
    [
      'an inherited name as a parameter',
      spec([task('a', { parameters: { constructor: 1 } as unknown as JsonObject })]),
      ['spec.tasks[0].parameters.constructor: rdkit.properties has no parameter "constructor"'],
    ],
  ])('with %s is refused', (_what, one, problems) => {
    expect(check(one)).toEqual(problems);
  });

  test.each([
    [{ type: 'strin' }, 'needs a "type": string, number, integer or boolean'],
    [{}, 'needs a "type": string, number, integer or boolean'],
    ['string', 'must be a JSON Schema object'],
    [{ type: 'string', pattern: '^(a+)+$' }, 'the keyword "pattern" is not supported'],
    [{ $ref: 'http://example.org/schema' }, 'the keyword "$ref" is not supported'],
    [{ type: 'number', minimum: 'one' }, '"minimum" must be number'],
    [{ type: 'string', minLength: -1 }, '"minLength" must be >= 0'],
    [{ type: 'string', enum: 'a' }, '"enum" must be array'],
    [{ type: 'string', minimum: 3 }, 'missing type "number" for keyword "minimum"'],
    [{ type: 'integer', enum: [] }, '"enum" must NOT have fewer than 1 items'],
    [{ type: 'string', format: 'email' }, 'a "format" is "artifact" or "smiles", of a string'],
    [{ type: 'integer', not: { type: 'string' } }, 'a "not" holds one "const"'],
  ])('with the parameter schema %j is refused', (schema, description) => {
    const one = spec([task('a')], { p: schema as unknown as JsonObject });
    expect(check(one)).toEqual([`spec.parameters.p: ${description}`]);
  });

  test('with a default its own schema refuses is refused', () => {
    const one = spec([task('a')], { p: { type: 'integer', maximum: 3, default: 4 } });
    expect(check(one)).toEqual(['spec.parameters.p.default: must be <= 3']);
  });

  test.each(['__proto__', 'Name', 'a b', "x'; DROP TABLE", ''])('with the parameter name %j is refused', (name) => {
    const parameters = JSON.parse(`{${JSON.stringify(name)}: {"type": "string"}}`) as PipelineSpec['parameters'];
    expect(check(spec([task('a')], parameters))).toEqual([
      `spec.parameters.${name}: a name has lower-case letters, digits and _, at most 63`,
    ]);
  });

  test('gets its versions when it is published', () => {
    const newer = definitionFinder([...definitions, { ...find('rdkit.properties', '')!, version: '10' }]);
    const pinned = pinVersions(spec([task('a'), task('b', { task_version: '1' })]), newer);
    expect(pinned.tasks.map((one) => one.task_version)).toEqual(['10', '1']);
  });
});

describe('sorting', () => {
  test('puts what is waited for first and keeps the order otherwise', () => {
    const nodes = [
      { id: 'd', dependsOn: ['b', 'c'] },
      { id: 'b', dependsOn: ['a'] },
      { id: 'c', dependsOn: ['a'] },
      { id: 'a', dependsOn: [] },
      { id: 'e', dependsOn: [] },
    ];
    const sorted = sortTasks(nodes);
    expect('order' in sorted && sorted.order.map(({ id }) => id)).toEqual(['a', 'b', 'c', 'd', 'e']);
  });
});

describe('a job', () => {
  const docking = builtInTemplates.find(({ category }) => category === 'docking')!.spec;
  const RECEPTOR = '0193a000-0000-7000-8000-000000000001';
  const given = { receptor: RECEPTOR, center_x: 1.5, center_y: 0, center_z: -3 };
  const plan = (parameters: JsonObject, of = docking) => planJob(of, parameters, find, validator);
  const refusals = (parameters: JsonObject, of = docking) => {
    const planned = plan(parameters, of);
    if (!('problems' in planned)) throw new Error('it was accepted');
    return planned.problems.map(({ field, description }) => `${field}: ${description}`);
  };

  test('runs with every default filled in, the pipeline’s and the task’s', () => {
    const planned = plan(given);
    if ('problems' in planned) throw new Error(JSON.stringify(planned.problems));
    expect(planned.parameters).toMatchObject({ ...given, size_x: 20, seed: 42, exhaustiveness: 8, replicas: 1 });
    expect(planned.tasks).toHaveLength(1);
    expect(planned.tasks[0]).toMatchObject({
      id: 'dock',
      dependsOn: [],
      parameters: { ...given, size_x: 20, size_y: 20, size_z: 20, num_modes: 9, energy_range: 3, seed: 42 },
      artifacts: [{ parameter: 'receptor', field: 'parameters.receptor', value: RECEPTOR, purpose: 'receptor' }],
    });
    expect(given).not.toHaveProperty('seed');
  });

  test('leaves the given values as they are', () => {
    const own = structuredClone(given);
    plan(own);
    expect(own).toEqual(given);
  });

  test.each<[JsonObject, string[]]>([
    [{ ...given, seed: 0 }, ['parameters.seed: must not be 0']],
    [{ ...given, seed: 1.5 }, ['parameters.seed: must be integer']],
    [{ ...given, exhaustiveness: 33 }, ['parameters.exhaustiveness: must be <= 32']],
    [{ ...given, replicas: 11 }, ['parameters.replicas: must be <= 10']],
    [{ ...given, size_x: 2 }, ['parameters.size_x: must be >= 3']],
    [{ ...given, receptor: 'host.pdbqt' }, ["parameters.receptor: must be an artifact's id (a UUID)"]],
    [{ ...given, receptor: 7 }, ['parameters.receptor: must be string']],
    [{ center_x: 1, center_y: 1, center_z: 1 }, ['parameters.receptor: is required']],
    [
      { ...given, cpu: 4 },
      [
        'parameters.cpu: the pipeline has no such parameter; it has receptor, center_x, center_y, center_z, size_x, size_y, size_z, exhaustiveness, seed, replicas',
      ],
    ],
  ])('with %j is refused', (parameters, problems) => {
    expect(refusals(parameters)).toEqual(problems);
  });

  test('of a chain runs upstream first and names what waits for what', () => {
    const chain = spec([similarity('rank', 'OCC', 'filter.molecules'), task('filter')]);
    const planned = plan({}, chain);
    if ('problems' in planned) throw new Error(JSON.stringify(planned.problems));
    expect(planned.tasks.map(({ id, dependsOn }) => [id, dependsOn])).toEqual([
      ['filter', []],
      ['rank', ['filter']],
    ]);
    expect(planned.tasks[1]!.smiles).toMatchObject([{ parameter: 'reference', value: 'OCC' }]);
  });
});
