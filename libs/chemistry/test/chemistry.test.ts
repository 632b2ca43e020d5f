import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { Chemistry, Normalized, Rejected } from '@mad/chemistry';
import { FINGERPRINT_BYTES, isRejected, openChemistry } from '@mad/chemistry';

const IMATINIB = 'Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(-c2cccnc2)n1';

// Twelve uranium atoms, each bound to every other: legal, short, and RDKit's path counts take 15 s over it.
const CLUSTER = cluster('[U]', 12);

let chemistry: Chemistry;
beforeAll(() => {
  chemistry = openChemistry({ workers: 2 });
});
afterAll(() => chemistry.close());

async function normalize(smiles: string): Promise<Normalized> {
  const [outcome] = await chemistry.normalize([{ smiles }]);
  if (!outcome || isRejected(outcome)) throw new Error(`${smiles}: ${outcome?.message}`);
  return outcome;
}

async function refusal(smiles: string): Promise<Rejected> {
  const [outcome] = await chemistry.normalize([{ smiles }]);
  if (!outcome || !isRejected(outcome)) throw new Error(`${smiles} was accepted`);
  return outcome;
}

describe('normalize', () => {
  test('gives the canonical form, key, formula, properties and fingerprint', async () => {
    const aspirin = await normalize('OC(=O)c1ccccc1OC(C)=O');
    expect(aspirin).toMatchObject({
      canonicalSmiles: 'CC(=O)Oc1ccccc1C(=O)O',
      inchikey: 'BSYNRYMUTXBXSQ-UHFFFAOYSA-N',
      formula: 'C9H8O4',
      properties: { hbd: 1, hba: 3, rings: 1, aromatic_rings: 1, heavy_atoms: 13, formal_charge: 0 },
    });
    expect(aspirin.molecularWeight).toBeCloseTo(180.159, 3);
    expect(aspirin.properties.exact_mass).toBeCloseTo(180.04226, 4);
    expect(aspirin.fingerprint).toHaveLength(FINGERPRINT_BYTES);
  });

  // Counted as RDKit's CalcMolFormula does (release 2022.09, Python), which without carbon would put hydrogen first.
  test.each([
    ['C[N+](C)(C)CC(=O)[O-].[Na+].[13CH4]', 'C6H15NNaO2+', 1],
    ['[Na+].[Cl-]', 'ClNa', 0],
    ['[2H]O[2H]', 'H2O', 0],
    ['O=C([O-])CC(=O)[O-]', 'C3H2O4-2', -2],
    ['[Fe+2]', 'Fe+2', 2],
    ['[H+]', 'H+', 1],
    ['F[P-](F)(F)(F)(F)F', 'F6P-', -1],
    ['BrCCl', 'CH2BrCl', 0],
    ['Cl[Pt](Cl)(N)N', 'Cl2H4N2Pt', 0],
    ['OS(=O)(=O)O', 'H2O4S', 0],
    [IMATINIB, 'C29H31N7O', 0],
  ])('the formula of %s is %s', async (smiles, formula, charge) => {
    const molecule = await normalize(smiles);
    expect(molecule.formula).toBe(formula);
    expect(molecule.properties.formal_charge).toBe(charge);
  });

  test('keeps apart what InChI merges, and keeps a molecule InChI cannot name', async () => {
    const [neutral, zwitterion] = [await normalize('NCC(=O)O'), await normalize('[NH3+]CC(=O)[O-]')];
    expect(zwitterion.inchikey).toBe(neutral.inchikey);
    expect(zwitterion.canonicalSmiles).not.toBe(neutral.canonicalSmiles);
    expect((await normalize('C->[Fe]')).inchikey).toBeNull();
  });

  test.each([
    ['', 'EMPTY', 'empty'],
    ['not a molecule', 'NOT_ASCII', 'blank'],
    ['c1cccc1', 'UNPARSABLE', 'atoms 1, 2, 3, 4, 5 have no Kekulé structure'],
    ['C(C)(C)(C)(C)C', 'UNPARSABLE', 'atom 1 (C) has 5 bonds'],
    ['C1CC', 'UNPARSABLE', 'opened and never closed'],
    ['cc', 'UNPARSABLE', 'in no ring'],
    ['CC]C', 'UNPARSABLE', 'syntax error near character 3'],
    ["C'; DROP--", 'NOT_ASCII', 'blank'],
    ["C');--", 'UNPARSABLE', 'syntax error'],
    ['CC*', 'PLACEHOLDER_ATOM', '*'],
    ['[999C]'.repeat(11), 'TOO_HEAVY', '10989 g/mol'],
  ])('refuses %j as %s', async (smiles, reason, words) => {
    const refused = await refusal(smiles);
    expect(refused.reason).toBe(reason);
    expect(refused.message).toContain(words);
  });

  test('answers a long list in its order, each bad row beside the good ones', async () => {
    const rows = Array.from({ length: 300 }, (_, i) => ({ smiles: i % 7 === 3 ? 'C1CC' : 'C'.repeat((i % 40) + 1) }));
    const outcomes = await chemistry.normalize(rows);
    expect(outcomes.map((o) => (isRejected(o) ? o.reason : o.canonicalSmiles))).toEqual(
      rows.map(({ smiles }) => (smiles === 'C1CC' ? 'UNPARSABLE' : smiles)),
    );
  });

  test('stays usable after poison, and the same thread with it', async () => {
    const single = openChemistry({ workers: 1 });
    const poison = [
      'C'.repeat(1_000),
      'C'.repeat(100_000),
      'C\0C',
      'CC\u041e',
      `${'C('.repeat(150)}C${')'.repeat(150)}`,
    ];
    const outcomes = await single.normalize([...poison, 'CCO', ...poison, 'OCC'].map((smiles) => ({ smiles })));
    const said = outcomes.map((o) => (isRejected(o) ? o.reason : o.canonicalSmiles));
    const refused = ['TOO_LONG', 'TOO_LONG', 'NOT_ASCII', 'NOT_ASCII', 'C'.repeat(151)];
    expect(said).toEqual([...refused, 'CCO', ...refused, 'CCO']);
    await single.close();
  });

  test('a molecule that takes too long is refused, its neighbours are answered, the pool lives on', async () => {
    const impatient = openChemistry({ workers: 1, moleculeTimeoutMs: 1_000 });
    const [before, slow, after] = await impatient.normalize([{ smiles: 'OCC' }, { smiles: CLUSTER }, { smiles: 'NC' }]);
    expect(slow).toMatchObject({ reason: 'TIMEOUT', message: expect.stringContaining('1000 ms') });
    expect([before, after]).toMatchObject([{ canonicalSmiles: 'CCO' }, { canonicalSmiles: 'CN' }]);
    await expect(impatient.normalize([{ smiles: 'OC' }])).resolves.toMatchObject([{ canonicalSmiles: 'CO' }]);
    await impatient.close();
  });

  test('callers take turns: one molecule does not wait for a library', async () => {
    const single = openChemistry({ workers: 1 });
    let libraryDone = false;
    const library = single
      .normalize(Array.from({ length: 640 }, () => ({ smiles: IMATINIB })))
      .then(() => (libraryDone = true));
    await single.normalize([{ smiles: 'CCO' }]);
    expect(libraryDone).toBe(false);
    await library;
    await single.close();
  });

  test('an aborted call ends at once with the reason, others do not notice', async () => {
    const controller = new AbortController();
    const library = chemistry.normalize(
      Array.from({ length: 640 }, () => ({ smiles: IMATINIB })),
      { signal: controller.signal },
    );
    controller.abort(new Error('cancelled by the user'));
    await expect(library).rejects.toThrow('cancelled by the user');
    await expect(normalize('OCC')).resolves.toMatchObject({ canonicalSmiles: 'CCO' });
  });

  test('closing fails what is still asked, and refuses what comes later', async () => {
    const closing = openChemistry({ workers: 1 });
    const pending = closing.normalize(Array.from({ length: 500 }, () => ({ smiles: IMATINIB })));
    const closed = closing.close();
    await expect(pending).rejects.toThrow('closed');
    await closed;
    await expect(closing.normalize([{ smiles: 'C' }])).rejects.toThrow('closed');
  });
});

describe('similarity', () => {
  // RDKit 2022.09 (Python): TanimotoSimilarity of GetMorganFingerprintAsBitVect(radius 2, 2,048 bits) to imatinib.
  test('equals RDKit’s own values', async () => {
    const outcomes = await chemistry.similarity(IMATINIB, [
      'Cc1cn(cn1)-c1cc(NC(=O)c2ccc(C)c(Nc3nccc(n3)-c3cccnc3)c2)cc(c1)C(F)(F)F',
      'CC(=O)Oc1ccccc1C(=O)O',
      'Cn1cnc2n(C)c(=O)n(C)c(=O)c12',
      'c1ccccc1',
      'C',
      IMATINIB,
      'C1CC',
    ]);
    const values = outcomes.map((o) => (isRejected(o) ? o.reason : o.similarity));
    expect(values).toEqual([46 / 89, 8 / 81, 8 / 82, 2 / 66, 0, 1, 'UNPARSABLE']);
  });

  test('a bad reference refuses every row and says that it was the reference', async () => {
    const outcomes = await chemistry.similarity('C1CC', ['CCO', 'CCC']);
    expect(outcomes).toHaveLength(2);
    expect(outcomes[0]).toMatchObject({ reason: 'UNPARSABLE', message: expect.stringContaining('the reference: ') });
  });
});

test('the version is RDKit’s', async () => {
  await expect(chemistry.version()).resolves.toMatch(/^20\d\d\.\d\d\.\d+$/);
});

/** A complete graph of one atom kind: atom i closes a ring with every atom but its neighbours in the chain. */
function cluster(atom: string, size: number): string {
  const labels = new Map<string, string>();
  const label = (a: number, b: number) => {
    const key = `${Math.min(a, b)}-${Math.max(a, b)}`;
    const known = labels.get(key) ?? `%${labels.size + 10}`;
    labels.set(key, known);
    return known;
  };
  return Array.from({ length: size }, (_, i) => {
    const partners = Array.from({ length: size }, (_, j) => j).filter((j) => Math.abs(i - j) > 1);
    return atom + partners.map((j) => label(i, j)).join('');
  }).join('');
}
