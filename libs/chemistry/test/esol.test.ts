import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Chemistry, PropertyName } from '@mad/chemistry';
import { isRejected, openChemistry } from '@mad/chemistry';
import fc from 'fast-check';

// Delaney's ESOL set with RDKit's columns; see PROVENANCE.md beside the file.
const FILE = resolve(import.meta.dirname, '../../../../shared/data/delaney-esol/delaney-processed.csv');
const present = existsSync(FILE);
const reason = present ? '' : ' (skipped: the ESOL data set is not beside this checkout)';

interface Published {
  smiles: string;
  columns: { molecular_weight: number; hbd: number; rings: number; rotatable_bonds: number; tpsa: number };
}

describe(`the 1,128 molecules of ESOL${reason}`, () => {
  let chemistry: Chemistry;
  let published: Published[];
  beforeAll(() => {
    chemistry = openChemistry();
    published = present ? readPublished() : [];
  });
  afterAll(() => chemistry.close());
  const run = present ? test : test.skip;

  run(
    'have exactly the published weight, donors, rings, rotatable bonds and polar surface',
    async () => {
      const outcomes = await chemistry.normalize(published);
      const computed = outcomes.map((outcome, i) => {
        if (isRejected(outcome)) return { smiles: published[i]?.smiles, columns: outcome };
        const { molecular_weight, hbd, rings, rotatable_bonds, tpsa } = outcome.properties;
        return { smiles: published[i]?.smiles, columns: { molecular_weight, hbd, rings, rotatable_bonds, tpsa } };
      });
      expect(computed).toHaveLength(1_128);
      expect(computed).toEqual(published);
    },
    120_000,
  );

  run('have one canonical form, however they are spelled', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(published.length - 1), fc.nat(), async (row, seed) => {
        const { smiles } = published[row]!;
        const respelled = await chemistry.respell(smiles, seed);
        if (isRejected(respelled)) throw new Error(respelled.message);
        expect(respelled.smiles).not.toBe(smiles);
        const [original, other] = await chemistry.normalize([{ smiles }, respelled]);
        if (!original || !other || isRejected(original) || isRejected(other)) throw new Error('refused');
        // Sums over atoms may differ in their last bit with the order of the atoms; all else is equal.
        expect({ ...other, properties: {}, molecularWeight: 0 }).toEqual({
          ...original,
          properties: {},
          molecularWeight: 0,
        });
        for (const [name, value] of Object.entries(original.properties)) {
          expect(other.properties[name as PropertyName]).toBeCloseTo(value, 9);
        }
      }),
      { numRuns: 300 },
    );
  });
});

/** Some names hold commas, so the columns are counted from the right; the SMILES is the last and ends in a blank. */
function readPublished(): Published[] {
  const lines = readFileSync(FILE, 'utf8').trimEnd().split('\n').slice(1);
  return lines.map((line) => {
    const [weight, donors, rings, rotatable, surface, , smiles = ''] = line.split(',').slice(-7);
    return {
      smiles: smiles.trim(),
      columns: {
        molecular_weight: Number(weight),
        hbd: Number(donors),
        rings: Number(rings),
        rotatable_bonds: Number(rotatable),
        tpsa: Number(surface),
      },
    };
  });
}
