import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Chemistry, Normalized } from '@mad/chemistry';
import { isRejected, openChemistry, parseReceptor, receptorAtomsInBox } from '@mad/chemistry';

const EXAMPLES = resolve(import.meta.dirname, '../../../examples');
const read = (file: string) => readFileSync(resolve(EXAMPLES, file), 'utf8');

function library(file: string): { smiles: string; name: string }[] {
  return read(file)
    .trimEnd()
    .split('\n')
    .map((line) => {
      const [smiles = '', name = '', ...more] = line.split('\t');
      if (name === '' || more.length > 0) throw new Error(`${file}: '${line}' is not SMILES, tab, name`);
      return { smiles, name };
    });
}

describe('the example libraries', () => {
  let chemistry: Chemistry;
  beforeAll(() => {
    chemistry = openChemistry({ workers: 2 });
  });
  afterAll(() => chemistry.close());

  async function normalized(file: string): Promise<Map<string, Normalized>> {
    const rows = library(file);
    const outcomes = await chemistry.normalize(rows);
    return new Map(
      outcomes.map((outcome, index) => {
        const { name } = rows[index]!;
        if (isRejected(outcome)) throw new Error(`${name}: ${outcome.message}`);
        return [name, outcome];
      }),
    );
  }

  test('approved drugs: at least 60 different molecules, imatinib among them', async () => {
    const drugs = await normalized('approved-drugs.smi');
    expect(drugs.size).toBeGreaterThanOrEqual(60);
    expect(drugs.size).toBe(library('approved-drugs.smi').length);
    expect(new Set([...drugs.values()].map(({ inchikey }) => inchikey)).size).toBe(drugs.size);
    expect(drugs.get('imatinib')?.inchikey).toBe('KTUFNOKKBVMGRW-UHFFFAOYSA-N');
    expect(drugs.get('morphine')?.inchikey).toBe('BQJCRHHNABKAKU-KBQPJGBKSA-N');
  });

  test('every drug has another spelling that is the same molecule', async () => {
    const drugs = library('approved-drugs.smi');
    const respelled = await Promise.all(
      drugs.map(async ({ smiles }, seed) => {
        const other = await chemistry.respell(smiles, seed);
        if (isRejected(other)) throw new Error(other.message);
        return other;
      }),
    );
    expect(respelled.filter(({ smiles }, index) => smiles === drugs[index]?.smiles)).toEqual([]);
    const canonical = async (rows: { smiles: string }[]) =>
      (await chemistry.normalize(rows)).map((o) => (isRejected(o) ? o.message : o.canonicalSmiles));
    await expect(canonical(respelled)).resolves.toEqual(await canonical(drugs));
  });

  test('cyclodextrin guests: the 14 whose affinities are published', async () => {
    const guests = await normalized('cyclodextrin-guests.smi');
    expect(guests.size).toBe(14);
    expect(guests.get('adamantane-1-carboxylate')?.properties.formal_charge).toBe(-1);
  });
});

test('the host lies in its box', () => {
  const box = JSON.parse(read('beta-cyclodextrin.box.json')) as Parameters<typeof receptorAtomsInBox>[1];
  const { atoms } = parseReceptor(read('beta-cyclodextrin.pdbqt'));
  expect(receptorAtomsInBox(atoms, box)).toBe(atoms.length);
});
