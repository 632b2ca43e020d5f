import type { InterfaceSpec, ParameterSchema, TaskDefinition } from './task-definition.ts';

/** A task definition that comes with the product. */
export type BuiltInTask = Omit<TaskDefinition, 'taskDefinitionId' | 'orgId'>;

/** The engine that every docking number here was checked with (Debian's autodock-vina). */
const VINA_ENGINE = 'vina@1.2.3';

/** Numbers of the same kind: a coordinate of the box's centre in the receptor's frame, an edge of the box. */
const center = (axis: string): ParameterSchema => ({
  type: 'number',
  unit: 'Å',
  minimum: -1_000,
  maximum: 1_000,
  description: `Centre of the search box, ${axis}`,
});
const size = (axis: string): ParameterSchema => ({
  type: 'number',
  unit: 'Å',
  minimum: 3,
  maximum: 60,
  description: `Edge of the search box, ${axis}`,
});

function overMolecules(
  outputs: InterfaceSpec['outputs'],
  properties: Record<string, ParameterSchema>,
  required: string[],
): InterfaceSpec {
  return {
    inputs: { molecules: { type: 'molecules' } },
    // Whatever a task adds, the molecules it did not fail on can go on to another.
    outputs: { molecules: { type: 'molecules' }, ...outputs },
    parameters: { type: 'object', properties, required, additionalProperties: false },
  };
}

/** The task definitions of every installation, for the RDKit version it runs. */
export function builtInTasks(rdkitVersion: string): BuiltInTask[] {
  const rdkit = { engine: `rdkit@${rdkitVersion}`, version: '1', deterministic: true, cacheVersion: 1 };
  return [
    {
      ...rdkit,
      taskId: 'rdkit.properties',
      taskType: 'analysis',
      metadata: {
        description: 'Molecular weight, logP, polar surface area and other descriptors of each molecule',
        score_units: '',
        lower_is_better: false,
      },
      interfaceSpec: overMolecules({ properties: { type: 'properties' } }, {}, []),
      serviceConfig: { chunk_size: 100, cores: 1, memory_mb: 256, recipe: 'canonical-smiles' },
    },
    {
      ...rdkit,
      taskId: 'rdkit.similarity',
      taskType: 'analysis',
      metadata: {
        description:
          'Tanimoto similarity of each molecule to a reference, over Morgan fingerprints (radius 2, 2,048 bits)',
        score_units: 'tanimoto',
        lower_is_better: false,
      },
      interfaceSpec: overMolecules(
        { scores: { type: 'scores' } },
        { reference: { type: 'string', format: 'smiles', description: 'SMILES of the reference molecule' } },
        ['reference'],
      ),
      serviceConfig: { chunk_size: 100, cores: 1, memory_mb: 256, recipe: 'canonical-smiles' },
    },
    {
      taskId: 'vina.dock',
      version: '1',
      taskType: 'docking',
      engine: VINA_ENGINE,
      metadata: {
        description:
          'Docks each molecule into a rigid receptor with AutoDock Vina; the score is the corrected affinity',
        score_units: 'kcal/mol',
        lower_is_better: true,
      },
      interfaceSpec: overMolecules({ scores: { type: 'scores' }, poses: { type: 'poses' } }, dockingParameters, [
        'receptor',
        'center_x',
        'center_y',
        'center_z',
        'size_x',
        'size_y',
        'size_z',
      ]),
      serviceConfig: { chunk_size: 1, cores: 1, memory_mb: 600, recipe: 'openchemlib-9.25+obabel-3.1.1' },
      deterministic: true,
      cacheVersion: 1,
    },
  ];
}

const dockingParameters: Record<string, ParameterSchema> = {
  receptor: {
    type: 'string',
    format: 'artifact',
    purpose: 'receptor',
    description: 'The receptor, an artifact (PDBQT)',
  },
  center_x: center('x'),
  center_y: center('y'),
  center_z: center('z'),
  size_x: size('x'),
  size_y: size('y'),
  size_z: size('z'),
  exhaustiveness: { type: 'integer', minimum: 1, maximum: 32, default: 8, description: 'How long to search' },
  num_modes: { type: 'integer', minimum: 1, maximum: 20, default: 9, description: 'Poses to keep at most' },
  energy_range: {
    type: 'number',
    unit: 'kcal/mol',
    exclusiveMinimum: 0,
    maximum: 10,
    default: 3,
    description: 'Poses worse than the best by more are dropped',
  },
  seed: {
    type: 'integer',
    minimum: -2_147_483_648,
    maximum: 2_147_483_647,
    // Vina takes 0 for "choose one": two runs of it differ.
    not: { const: 0 },
    default: 42,
    description: 'Seed of the random numbers; replicas count on from it',
  },
  replicas: {
    type: 'integer',
    minimum: 1,
    maximum: 10,
    default: 1,
    description: 'Independent runs; from 3 on the result has a confidence',
  },
};
