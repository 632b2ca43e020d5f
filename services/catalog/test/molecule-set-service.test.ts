import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Code, type Client } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { MoleculeService, MoleculeSetService } from '@mad/proto/catalog';
import { reasonOf, violationsOf } from '@mad/rpc';
import { errorOf } from './errors.ts';
import { startTestCatalog, type TestCatalog } from './harness.ts';

let catalog: TestCatalog;
let sets: Client<typeof MoleculeSetService>;
let molecules: Client<typeof MoleculeService>;
beforeAll(async () => {
  catalog = await startTestCatalog();
  sets = await catalog.member(MoleculeSetService, catalog.acme);
  molecules = await catalog.member(MoleculeService, catalog.acme);
});
afterAll(() => catalog.close());

const ofAcme = () => ({ orgId: catalog.acme.orgId, requestId: uuidv7() });

async function newSet(name: string = uuidv7()): Promise<string> {
  const { moleculeSet } = await sets.createMoleculeSet({ ...ofAcme(), name });
  return moleculeSet!.moleculeSetId;
}

const add = (moleculeSetId: string, ...smiles: string[]) =>
  molecules.registerMolecules({ ...ofAcme(), moleculeSetId, rows: smiles.map((one) => ({ smiles: one })) });

describe('a library', () => {
  test('keeps the order in which molecules came, page by page, one molecule in two places as well', async () => {
    const { orgId } = catalog.acme;
    const moleculeSetId = await newSet();
    await add(moleculeSetId, 'CCO', 'bad(', 'C');
    await add(moleculeSetId, 'N', 'OCC');
    const smiles: string[] = [];
    let pageToken = '';
    do {
      const page = await sets.listMoleculeSetMembers({ orgId, moleculeSetId, pageSize: 3, pageToken });
      smiles.push(...page.members.map((one) => `${one.itemNo} ${one.canonicalSmiles}`));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(smiles).toEqual(['1 CCO', '2 C', '3 N', '4 CCO']);
    const { moleculeSet } = await sets.getMoleculeSet({ orgId, moleculeSetId });
    expect(moleculeSet).toMatchObject({ size: 4, sealed: false });
  });

  test('gets every molecule once from registrations at the same time', async () => {
    const moleculeSetId = await newSet();
    await Promise.all(['CF', 'CCF', 'CCCF', 'CCCCF'].map((smiles) => add(moleculeSetId, smiles, `${smiles}.Cl`)));
    const { members } = await sets.listMoleculeSetMembers({ orgId: catalog.acme.orgId, moleculeSetId });
    expect(members.map((one) => one.itemNo)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test('has a unique name of any characters', async () => {
    const name = `x'; DELETE FROM catalog.molecule_sets; --`;
    await newSet(name);
    const error = await errorOf(newSet(name));
    expect([error.code, error.rawMessage]).toEqual([Code.AlreadyExists, 'name: is already taken']);
    expect(violationsOf(await errorOf(newSet('\n'))).map(({ field }) => field)).toEqual(['name']);
  });

  test('that does not exist takes no molecules', async () => {
    expect((await errorOf(add(uuidv7(), 'C'))).code).toBe(Code.NotFound);
    expect(violationsOf(await errorOf(add(`'; --`, 'C'))).map(({ field }) => field)).toEqual(['molecule_set_id']);
  });

  test('a members page token of another library is refused', async () => {
    const { orgId } = catalog.acme;
    const [one, two] = [await newSet(), await newSet()];
    await add(one, 'C', 'CC');
    const { nextPageToken } = await sets.listMoleculeSetMembers({ orgId, moleculeSetId: one, pageSize: 1 });
    const error = await errorOf(sets.listMoleculeSetMembers({ orgId, moleculeSetId: two, pageToken: nextPageToken }));
    expect(violationsOf(error).map(({ field }) => field)).toEqual(['page_token']);
  });
});

describe('a sealed library', () => {
  test('is sealed once and stays as it is', async () => {
    const { orgId } = catalog.acme;
    const moleculeSetId = await newSet();
    await add(moleculeSetId, 'C', 'CC');
    const { moleculeSet } = await sets.sealMoleculeSet({ orgId, moleculeSetId });
    expect(moleculeSet).toMatchObject({ sealed: true, size: 2 });
    expect((await sets.sealMoleculeSet({ orgId, moleculeSetId })).moleculeSet).toEqual(moleculeSet);
    const error = await errorOf(add(moleculeSetId, 'CCC'));
    expect([error.code, reasonOf(error)]).toEqual([Code.FailedPrecondition, 'IMMUTABLE']);
    expect((await sets.getMoleculeSet({ orgId, moleculeSetId })).moleculeSet!.size).toBe(2);
  });

  test('the database itself refuses to change it', async () => {
    const { orgId } = catalog.acme;
    const moleculeSetId = await newSet();
    const { registered } = await add(moleculeSetId, 'C');
    await sets.sealMoleculeSet({ orgId, moleculeSetId });
    const insert = 'INSERT INTO catalog.molecule_set_members VALUES ($1, $2, 2, $3)';
    const { moleculeId } = registered[0]!;
    await expect(catalog.admin.query(insert, [orgId, moleculeSetId, moleculeId])).rejects.toThrow('does not change');
    for (const change of ['size = 0', 'sealed_at = NULL', `name = 'other'`]) {
      const update = `UPDATE catalog.molecule_sets SET ${change} WHERE molecule_set_id = $1`;
      await expect(catalog.admin.query(update, [moleculeSetId])).rejects.toThrow('does not change');
    }
    const rights = await catalog.admin.query(
      `SELECT bool_or(has_table_privilege(role, 'catalog.molecule_set_members', 'UPDATE, DELETE')) AS may
       FROM unnest(ARRAY['mad_catalog', 'mad_catalog_system']) AS role`,
    );
    expect(rights.rows).toEqual([{ may: false }]);
  });

  test('either takes a registration at the time of its sealing or refuses it', async () => {
    const { orgId } = catalog.acme;
    for (let round = 0; round < 5; round++) {
      const moleculeSetId = await newSet();
      const [sealed, added] = await Promise.all([
        sets.sealMoleculeSet({ orgId, moleculeSetId }),
        add(moleculeSetId, 'C').then(
          () => 1,
          () => 0,
        ),
      ]);
      expect(sealed.moleculeSet!.size).toBe(added);
    }
  });
});
