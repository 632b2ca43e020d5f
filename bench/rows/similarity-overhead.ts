import { openChemistry } from '@mad/chemistry';
import { createRdkitEngine } from '../../services/worker/src/engines/rdkit-engine.ts';
import { interleave, millisecondsOf } from '../measure.ts';
import { openRdkitFloor } from '../rdkit-floor.ts';
import { scaled, type Row } from '../row.ts';

const MOLECULES = 2_000;
/** Aspirin. */
const REFERENCE = 'CC(=O)Oc1ccccc1C(=O)O';
/** A task has one core; more cores run more tasks. */
const THREADS = 1;

/** The worker's similarity task against RDKit alone: what checks, time limits and outcomes cost. */
export const similarityOverhead: Row = {
  name: 'similarity-overhead',
  async run(bench) {
    const { smiles, source } = await bench.library();
    const chosen = smiles.slice(0, scaled(bench, MOLECULES, 200));
    const items = chosen.map((one, index) => ({ itemNo: index + 1, smiles: one }));
    const chemistry = openChemistry({ workers: THREADS });
    const engine = createRdkitEngine(chemistry);
    const floor = await openRdkitFloor(THREADS);
    const signal = new AbortController().signal;
    const task = { task: 'rdkit.similarity', parameters: { reference: REFERENCE }, artifacts: {}, items, cores: 1 };
    try {
      const rateOf = (ms: number): number => (chosen.length / ms) * 1000;
      const samples = await interleave(scaled(bench, 9, 2), {
        async ours() {
          let outcomes = 0;
          const ms = await millisecondsOf(() => engine.run(task, () => void (outcomes += 1), signal));
          if (outcomes !== items.length) throw new Error(`${outcomes} outcomes of ${items.length} items`);
          return rateOf(ms);
        },
        floor: async () => rateOf(await millisecondsOf(() => floor.run({ smiles: chosen, reference: REFERENCE }))),
      });
      const notes = { library: source, molecules: chosen.length, threads: THREADS };
      const target = { of: 'ratio', atLeast: 0.7 } as const;
      return [{ name: 'similarity-overhead', unit: 'molecules/s', target, ...samples, notes }];
    } finally {
      await Promise.all([chemistry.close(), floor.close()]);
    }
  },
};
