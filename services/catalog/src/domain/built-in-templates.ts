import type { PipelineSpec } from './pipeline-spec.ts';
import type { JsonObject } from './task-definition.ts';

/** A pipeline to start from that comes with the product. */
export interface BuiltInTemplate {
  name: string;
  description: string;
  category: string;
  spec: PipelineSpec;
  defaultParameters: JsonObject;
}

const fromJob = { molecules: 'job.molecules' };

/** The pipeline templates of every installation. */
export const builtInTemplates: readonly BuiltInTemplate[] = [
  {
    name: 'Property profile',
    description: 'Computes molecular weight, logP, polar surface area and other descriptors of each molecule.',
    category: 'analysis',
    spec: {
      version: '1',
      parameters: {},
      tasks: [{ id: 'properties', task: 'rdkit.properties', task_version: '', inputs: fromJob, parameters: {} }],
    },
    defaultParameters: {},
  },
  {
    name: 'Ligand-based screening',
    description: 'Ranks molecules by their similarity to a reference molecule.',
    category: 'screening',
    spec: {
      version: '1',
      parameters: {
        reference: { type: 'string', format: 'smiles', description: 'SMILES of the reference molecule' },
      },
      tasks: [
        {
          id: 'similarity',
          task: 'rdkit.similarity',
          task_version: '',
          inputs: fromJob,
          parameters: { reference: '${reference}' },
        },
      ],
    },
    defaultParameters: {},
  },
  {
    name: 'Docking',
    description: 'Docks molecules into a rigid receptor and ranks them by affinity.',
    category: 'docking',
    spec: {
      version: '1',
      parameters: {
        receptor: { type: 'string', format: 'artifact', purpose: 'receptor', description: 'The receptor (PDBQT)' },
        center_x: { type: 'number', unit: 'Å', description: 'Centre of the search box, x' },
        center_y: { type: 'number', unit: 'Å', description: 'Centre of the search box, y' },
        center_z: { type: 'number', unit: 'Å', description: 'Centre of the search box, z' },
        size_x: { type: 'number', unit: 'Å', default: 20, description: 'Edge of the search box, x' },
        size_y: { type: 'number', unit: 'Å', default: 20, description: 'Edge of the search box, y' },
        size_z: { type: 'number', unit: 'Å', default: 20, description: 'Edge of the search box, z' },
        exhaustiveness: { type: 'integer', default: 8, description: 'How long to search' },
        seed: { type: 'integer', default: 42, description: 'Seed of the random numbers, not 0' },
        replicas: { type: 'integer', default: 1, description: 'Independent runs; from 3 on there is a confidence' },
      },
      tasks: [
        {
          id: 'dock',
          task: 'vina.dock',
          task_version: '',
          inputs: fromJob,
          parameters: {
            receptor: '${receptor}',
            center_x: '${center_x}',
            center_y: '${center_y}',
            center_z: '${center_z}',
            size_x: '${size_x}',
            size_y: '${size_y}',
            size_z: '${size_z}',
            exhaustiveness: '${exhaustiveness}',
            seed: '${seed}',
            replicas: '${replicas}',
          },
        },
      ],
    },
    defaultParameters: {},
  },
];
