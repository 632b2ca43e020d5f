import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { isRejected, openChemistry, type Chemistry } from '@mad/chemistry';
import fc from 'fast-check';
import { openWorld, similarity, type World } from './support/world.ts';

// Delaney's ESOL set: real molecules, with rings, charges and stereo centres.
const FILE = resolve(import.meta.dirname, '../../../../shared/data/delaney-esol/delaney-processed.csv');
const present = existsSync(FILE);
const reason = present ? '' : ' (skipped: the ESOL data set is not beside this checkout)';
const MOLECULES = 400;

describe(`real molecules in other spellings${reason}`, () => {
  let chemistry: Chemistry;
  let world: World;
  let esol: string[];
  beforeAll(async () => {
    chemistry = openChemistry();
    world = await openWorld();
    esol = present ? readFileSync(FILE, 'utf8').trimEnd().split('\n').slice(1).map(lastColumn) : [];
  });
  afterAll(async () => {
    await chemistry.close();
    await world.close();
  });

  const canonical = async (smiles: readonly string[]): Promise<string[]> =>
    (await chemistry.normalize(smiles.map((one) => ({ smiles: one })))).map((outcome) => {
      if (isRejected(outcome)) throw new Error(outcome.message);
      return outcome.canonicalSmiles;
    });

  (present ? test : test.skip)(
    'never miss: registered again under another spelling, each is answered from what was computed before',
    async () => {
      expect(esol).toHaveLength(1_128);
      await fc.assert(
        fc.asyncProperty(fc.nat(), async (seed) => {
          const start = seed % esol.length;
          const picked = [...esol.slice(start), ...esol.slice(0, start)].slice(0, MOLECULES);
          const respelled = await Promise.all(
            picked.map(async (smiles, index) => {
              const other = await chemistry.respell(smiles, seed + index);
              if (isRejected(other)) throw new Error(other.message);
              return other.smiles;
            }),
          );
          const changed = respelled.filter((smiles, index) => smiles !== picked[index]).length;
          expect(changed).toBeGreaterThan(MOLECULES / 2);
          const org = await world.organization();
          const plans = [similarity({ chunkSize: 100 })];
          const { runnable } = await world.materialize(org, { smiles: await canonical(picked), plans });
          for (const { taskExecutionId } of runnable) await world.run(org, taskExecutionId, () => ({ score: 0.5 }));
          const again = await world.materialize(org, { smiles: await canonical(respelled), plans });
          expect(again.progress?.counters).toMatchObject({ requested: BigInt(MOLECULES), cached: BigInt(MOLECULES) });
        }),
        { numRuns: 2 },
      );
    },
    300_000,
  );
});

/** The SMILES is the last column, and no column has a comma in quotes behind the name. */
function lastColumn(line: string): string {
  return line.slice(line.lastIndexOf(',') + 1).trim();
}
