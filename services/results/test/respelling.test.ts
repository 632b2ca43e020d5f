import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { isRejected, openChemistry, type Chemistry } from '@mad/chemistry';
import fc from 'fast-check';
import { openWorld, similarity, type World } from './support/world.ts';

// Delaney's ESOL set and the approved and failed drugs of ClinTox: real molecules, with rings, charges and stereo centres.
const DATA = resolve(import.meta.dirname, '../../../../shared/data');
const ESOL = resolve(DATA, 'delaney-esol/delaney-processed.csv');
const DRUGS = resolve(DATA, 'fda-drugs/clintox.csv.gz');
const present = existsSync(ESOL) && existsSync(DRUGS);
const reason = present ? '' : ' (skipped: the molecule sets are not beside this checkout)';
const MOLECULES = 2_000;

describe(`real molecules in other spellings${reason}`, () => {
  let chemistry: Chemistry;
  let world: World;
  let molecules: string[];
  beforeAll(async () => {
    chemistry = openChemistry();
    world = await openWorld();
    molecules = present ? await different([...lines(readFileSync(ESOL)).map(lastColumn), ...drugs()]) : [];
  }, 120_000);
  afterAll(async () => {
    await chemistry.close();
    await world.close();
  });

  /** The first spelling of each molecule that may be registered. */
  const different = async (spellings: readonly string[]): Promise<string[]> => {
    const found = new Map<string, string>();
    const outcomes = await chemistry.normalize(spellings.map((smiles) => ({ smiles })));
    for (const [index, outcome] of outcomes.entries()) {
      if (isRejected(outcome) || found.has(outcome.canonicalSmiles)) continue;
      found.set(outcome.canonicalSmiles, spellings[index]!);
    }
    return [...found.values()].slice(0, MOLECULES);
  };

  const canonical = async (smiles: readonly string[]): Promise<string[]> =>
    (await chemistry.normalize(smiles.map((one) => ({ smiles: one })))).map((outcome) => {
      if (isRejected(outcome)) throw new Error(outcome.message);
      return outcome.canonicalSmiles;
    });

  (present ? test : test.skip)(
    'never miss: registered again under another spelling, each is answered from what was computed before',
    async () => {
      expect(molecules).toHaveLength(MOLECULES);
      await fc.assert(
        fc.asyncProperty(fc.nat(), async (seed) => {
          const respelled = await Promise.all(
            molecules.map(async (smiles, index) => {
              const other = await chemistry.respell(smiles, seed + index);
              if (isRejected(other)) throw new Error(other.message);
              return other.smiles;
            }),
          );
          const changed = respelled.filter((smiles, index) => smiles !== molecules[index]).length;
          expect(changed).toBeGreaterThan(MOLECULES / 2);
          const org = await world.organization();
          const plans = [similarity({ chunkSize: 1_000 })];
          const { runnable } = await world.materialize(org, { smiles: await canonical(molecules), plans });
          for (const { taskExecutionId } of runnable) await world.run(org, taskExecutionId, () => ({ score: 0.5 }));
          const again = await world.materialize(org, { smiles: await canonical(respelled), plans });
          expect(again.progress?.counters).toMatchObject({ requested: BigInt(MOLECULES), cached: BigInt(MOLECULES) });
        }),
        { numRuns: 1 },
      );
    },
    300_000,
  );
});

const lines = (text: Buffer): string[] => text.toString('utf8').trimEnd().split('\n').slice(1);

const drugs = (): string[] => lines(gunzipSync(readFileSync(DRUGS))).map((line) => line.slice(0, line.indexOf(',')));

/** The SMILES is the last column, and no column has a comma in quotes behind the name. */
function lastColumn(line: string): string {
  return line.slice(line.lastIndexOf(',') + 1).trim();
}
