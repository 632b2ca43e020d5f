import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Chemistry } from '@mad/chemistry';
import { openChemistry } from '@mad/chemistry';
import type { Engine, EngineTask } from '../../src/engines/engine.ts';
import { createRdkitEngine } from '../../src/engines/rdkit-engine.ts';
import { collect, engineContract } from './engine-contract.ts';

const IMATINIB = 'Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(-c2cccnc2)n1';

let chemistry: Chemistry;
let engine: Engine;
beforeAll(() => {
  chemistry = openChemistry({ workers: 2 });
  engine = createRdkitEngine(chemistry);
});
afterAll(() => chemistry.close());

const shared = {
  engine: () => engine,
  good: ['CC(=O)Oc1ccccc1C(=O)O', IMATINIB] as [string, string],
  bad: { smiles: 'c1cccc1', errorClass: 'INVALID_MOLECULE' },
  timeoutMs: 20_000,
};

engineContract(
  'rdkit.similarity',
  {
    ...shared,
    task: () => ({ task: 'rdkit.similarity', parameters: { reference: IMATINIB }, artifacts: {} }),
    badParameters: { parameters: { reference: 'C1CC' }, names: 'reference' },
  },
  test,
);

describe('the rdkit engine', () => {
  const task = (name: string, smiles: string[], parameters = {}): EngineTask => ({
    task: name,
    parameters,
    artifacts: {},
    cores: 1,
    items: smiles.map((text, index) => ({ itemNo: index + 1, smiles: text })),
  });

  test('rdkit.properties gives properties and no score', async () => {
    const [aspirin, broken] = await collect(engine, task('rdkit.properties', ['OC(=O)c1ccccc1OC(C)=O', 'C1CC']));
    expect(aspirin).toMatchObject({
      status: 'scored',
      resultData: {
        canonical_smiles: 'CC(=O)Oc1ccccc1C(=O)O',
        inchikey: 'BSYNRYMUTXBXSQ-UHFFFAOYSA-N',
        formula: 'C9H8O4',
        hbd: 1,
        rings: 1,
      },
    });
    expect(aspirin).not.toHaveProperty('score');
    expect(aspirin).not.toHaveProperty('confidenceScore');
    expect(broken).toMatchObject({ status: 'failed', errorClass: 'INVALID_MOLECULE' });
  });

  // RDKit 2022.09 (Python): Tanimoto of Morgan bit vectors, radius 2, 2,048 bits.
  test('rdkit.similarity scores by Tanimoto: 8 of 81 bits for aspirin, all for imatinib itself', async () => {
    const outcomes = await collect(
      engine,
      task('rdkit.similarity', ['CC(=O)Oc1ccccc1C(=O)O', IMATINIB], { reference: IMATINIB }),
    );
    expect(outcomes).toEqual([
      { itemNo: 1, status: 'scored', score: 8 / 81, resultData: { tanimoto: 8 / 81 } },
      { itemNo: 2, status: 'scored', score: 1, resultData: { tanimoto: 1 } },
    ]);
  });

  test('rdkit.similarity needs a reference', async () => {
    const failure = collect(engine, task('rdkit.similarity', ['C']));
    await expect(failure).rejects.toMatchObject({ errorClass: 'INVALID_PARAMETER' });
  });
});
