import { availableParallelism } from 'node:os';
import { createClient } from '@connectrpc/connect';
import { MoleculeService } from '@mad/proto/catalog';
import { interleave, millisecondsOf } from '../measure.ts';
import { openRdkitFloor } from '../rdkit-floor.ts';
import { scaled, type Row } from '../row.ts';

/** Of one round; every round has others, so that each is registered for the first time. */
const MOLECULES = 1_000;
const ROUNDS = 9;
/** Rows to a message. */
const BATCH_SIZE = 250;

/** A library streamed into catalog, judged by RDKit and stored, against RDKit alone in the same number of threads. */
export const registration: Row = {
  name: 'registration',
  async run(bench) {
    const { smiles, source } = await bench.library();
    const threads = availableParallelism();
    const system = await bench.system();
    const { orgId, transport } = await system.newOrganization('catalog');
    const molecules = createClient(MoleculeService, transport);
    const rounds = scaled(bench, ROUNDS, 2);
    const size = Math.min(scaled(bench, MOLECULES, 100), Math.floor(smiles.length / (rounds + 1)));
    const partOf = (round: number): string[] => smiles.slice(round * size, (round + 1) * size);
    const rateOf = (ms: number): number => (size / ms) * 1000;
    const floor = await openRdkitFloor(threads);

    async function* batches(part: readonly string[]) {
      for (let start = 0; start < part.length; start += BATCH_SIZE) {
        const rows = part.slice(start, start + BATCH_SIZE).map((one, index) => ({
          smiles: one,
          name: `molecule ${start + index}`,
        }));
        yield { orgId, moleculeSetId: '', rows };
      }
    }
    let rejected = 0n;
    try {
      const samples = await interleave(
        rounds,
        {
          async ours(round) {
            const ms = await millisecondsOf(async () => {
              const answer = await molecules.importMolecules(batches(partOf(round)));
              rejected += answer.rejected;
              if (answer.registered + answer.rejected !== BigInt(size)) throw new Error('molecules were lost');
            });
            return rateOf(ms);
          },
          floor: async (round) =>
            rateOf(await millisecondsOf(() => floor.run({ smiles: partOf(round), reference: undefined }))),
        },
        (round) => bench.progress(`round ${round}`),
      );
      const notes = { library: source, molecules_per_round: size, threads, rejected: Number(rejected) };
      const target = { of: 'ratio', atLeast: 0.7 } as const;
      return [{ name: 'registration', unit: 'molecules/s', target, ...samples, notes }];
    } finally {
      await floor.close();
    }
  },
};
