import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Code, type Client } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { MoleculeService, MoleculeSetService } from '@mad/proto/catalog';
import { OrganizationStatus } from '@mad/proto/identity';
import { reasonOf, violationsOf } from '@mad/rpc';
import { errorOf } from './errors.ts';
import { startTestCatalog, type TestCatalog } from './harness.ts';
import { organization } from './neighbours.ts';

const ASPIRIN = 'CC(=O)Oc1ccccc1C(=O)O';

let catalog: TestCatalog;
let acme: Client<typeof MoleculeService>;
let globex: Client<typeof MoleculeService>;
let acmeSets: Client<typeof MoleculeSetService>;
beforeAll(async () => {
  catalog = await startTestCatalog();
  acme = await catalog.member(MoleculeService, catalog.acme);
  globex = await catalog.member(MoleculeService, catalog.globex);
  acmeSets = await catalog.member(MoleculeSetService, catalog.acme);
});
afterAll(() => catalog.close());

const rowsOf = (...rows: [smiles: string, name?: string][]) => rows.map(([smiles, name = '']) => ({ smiles, name }));

const ofAcme = () => ({ orgId: catalog.acme.orgId, requestId: uuidv7() });

describe('registering', () => {
  test('keeps canonical form, key, formula, weight, properties and names', async () => {
    const rows = rowsOf(['OC(=O)c1ccccc1OC(C)=O', 'aspirin']);
    const { registered, rejected } = await acme.registerMolecules({ ...ofAcme(), rows });
    expect(rejected).toEqual([]);
    expect(registered).toMatchObject([{ line: 1, canonicalSmiles: ASPIRIN, created: true }]);
    const { moleculeId } = registered[0]!;
    const { molecule } = await acme.getMolecule({ orgId: catalog.acme.orgId, moleculeId });
    expect(molecule).toMatchObject({
      moleculeId,
      orgId: catalog.acme.orgId,
      name: 'aspirin',
      synonyms: [],
      smiles: 'OC(=O)c1ccccc1OC(C)=O',
      canonicalSmiles: ASPIRIN,
      inchikey: 'BSYNRYMUTXBXSQ-UHFFFAOYSA-N',
      formula: 'C9H8O4',
      properties: { hbd: 1, rings: 1, heavy_atoms: 13 },
    });
    expect(molecule!.molecularWeight).toBeCloseTo(180.159, 3);
    expect(molecule!.normalizer).toMatch(/^rdkit \d{4}\./);
  });

  test('a known molecule keeps its id and gains the name as a synonym, in every spelling', async () => {
    const first = await acme.registerMolecules({ ...ofAcme(), rows: rowsOf(['CCO', 'ethanol']) });
    const again = await acme.registerMolecules({
      ...ofAcme(),
      rows: rowsOf(['OCC', 'ethyl alcohol'], ['C(O)C', 'ethanol'], ['OCC', 'ethyl alcohol'], ['CCO']),
    });
    const { moleculeId } = first.registered[0]!;
    expect(again.registered.map((row) => [row.line, row.moleculeId, row.created])).toEqual(
      [1, 2, 3, 4].map((line) => [line, moleculeId, false]),
    );
    const { molecule } = await acme.getMolecule({ orgId: catalog.acme.orgId, moleculeId });
    expect(molecule).toMatchObject({ name: 'ethanol', synonyms: ['ethyl alcohol'], smiles: 'CCO' });
  });

  test('duplicates within a request are one molecule, made once, named by its first name', async () => {
    const rows = rowsOf(['CCN'], ['NCC', 'ethylamine'], ['CCN', 'aminoethane']);
    const { registered } = await acme.registerMolecules({ ...ofAcme(), rows });
    expect(new Set(registered.map((row) => row.moleculeId)).size).toBe(1);
    expect(registered.map((row) => row.created)).toEqual([true, false, false]);
    const { molecule } = await acme.getMolecule({ orgId: catalog.acme.orgId, moleculeId: registered[0]!.moleculeId });
    expect(molecule).toMatchObject({ name: 'ethylamine', synonyms: ['aminoethane'] });
  });

  test('rows are refused one by one, with line and reason; the good ones stay', async () => {
    const poison = 'C'.repeat(599) + '1';
    const rows = rowsOf(
      ['CCCC', 'butane'],
      ['C1CC', 'open ring'],
      ['', 'nothing'],
      ['   ', 'blanks'],
      ['CC\u041e', 'Cyrillic O'],
      ['C'.repeat(1_000), 'thousand carbons'],
      ['C'.repeat(401), 'too many atoms'],
      [poison, 'poison'],
      ['C\u0000C', 'NUL'],
      ['C*', 'placeholder'],
      ['x'.repeat(100_000), 'oversized'],
      ['CCC', 'pro\u0007pane'],
      ['CCC', 'p'.repeat(256)],
      ['CCCCC pentane from a file', 'pentane'],
    );
    const { registered, rejected } = await acme.registerMolecules({ ...ofAcme(), rows });
    expect(registered.map((row) => [row.line, row.canonicalSmiles])).toEqual([
      [1, 'CCCC'],
      [14, 'CCCCC'],
    ]);
    expect(rejected.map((row) => [row.line, row.reason])).toEqual([
      [2, 'UNPARSABLE'],
      [3, 'EMPTY'],
      [4, 'EMPTY'],
      [5, 'NOT_ASCII'],
      [6, 'TOO_LONG'],
      [7, 'TOO_MANY_ATOMS'],
      [8, 'TOO_MANY_ATOMS'],
      [9, 'NOT_ASCII'],
      [10, 'PLACEHOLDER_ATOM'],
      [11, 'TOO_LONG'],
      [12, 'NAME_INVALID'],
      [13, 'NAME_INVALID'],
    ]);
    expect(rejected.every((row) => row.message !== '' && row.smiles.length <= 200)).toBe(true);
    const after = await acme.registerMolecules({ ...ofAcme(), rows: rowsOf(['c1ccccc1', 'benzene']) });
    expect(after.registered[0]!.canonicalSmiles).toBe('c1ccccc1');
  });

  test('a repeat by request id is the first answer; with another payload it is refused', async () => {
    const request = { ...ofAcme(), rows: rowsOf(['CCCCCC', 'hexane']) };
    const first = await acme.registerMolecules(request);
    expect(first.registered[0]!.created).toBe(true);
    expect(await acme.registerMolecules(request)).toEqual(first);
    const error = await errorOf(acme.registerMolecules({ ...request, rows: rowsOf(['CCCCCCC']) }));
    expect(error.code).toBe(Code.AlreadyExists);
    expect(error.rawMessage).toContain('rows');
  });

  test('the example libraries are registered without a refusal', async () => {
    for (const file of ['approved-drugs.smi', 'cyclodextrin-guests.smi']) {
      const text = await readFile(new URL(`../../../examples/${file}`, import.meta.url), 'utf8');
      const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
      const rows = lines.map((line) => line.split('\t')).map(([smiles = '', name = '']) => ({ smiles, name }));
      const { registered, rejected } = await acme.registerMolecules({ ...ofAcme(), rows });
      expect(rejected).toEqual([]);
      expect(new Set(registered.map((row) => row.moleculeId)).size).toBe(rows.length);
    }
  });

  test('SQL metacharacters in names are names', async () => {
    const name = `'); DROP TABLE catalog.molecules; -- "\\" $1 %s {a,b} \u{1F9EA}`;
    const { registered } = await acme.registerMolecules({
      ...ofAcme(),
      rows: rowsOf(['CCS', name], ['SCC', `${name}2`]),
    });
    const { molecule } = await acme.getMolecule({ orgId: catalog.acme.orgId, moleculeId: registered[0]!.moleculeId });
    expect(molecule).toMatchObject({ name, synonyms: [`${name}2`] });
    const found = await acme.listMolecules({ orgId: catalog.acme.orgId, query: name });
    expect(found.molecules.map((one) => one.moleculeId)).toEqual([registered[0]!.moleculeId]);
  });

  test('registrations of the same molecules at the same time do not stand in each other’s way', async () => {
    const smiles = Array.from({ length: 40 }, (_, index) => `${'C'.repeat(index + 8)}O`);
    const answers = await Promise.all(
      [smiles, smiles.toReversed(), smiles, smiles.toReversed()].map((list, caller) =>
        acme.registerMolecules({ ...ofAcme(), rows: list.map((one) => ({ smiles: one, name: `by ${caller}` })) }),
      ),
    );
    const ids = answers.map(({ registered }) => registered.map((row) => row.moleculeId).sort());
    expect(new Set(ids.map((list) => list.join())).size).toBe(1);
    const created = answers.flatMap(({ registered }) => registered.filter((row) => row.created));
    expect(created).toHaveLength(40);
  });

  test('more molecules than the quota are refused whole, and the count stays true', async () => {
    const small = organization({ slug: 'small' });
    small.quotas!.maxMolecules = 3n;
    catalog.identity.organizations.set(small.orgId, small);
    const client = await catalog.member(MoleculeService, small);
    const register = (...rows: [string][]) =>
      client.registerMolecules({ orgId: small.orgId, requestId: uuidv7(), rows: rowsOf(...rows) });
    await register(['C'], ['CC']);
    const error = await errorOf(register(['CCC'], ['CCCC']));
    expect(error.code).toBe(Code.ResourceExhausted);
    expect(reasonOf(error)).toBe('QUOTA_EXCEEDED');
    expect(error.rawMessage).toContain('max_molecules');
    await register(['C'], ['CC'], ['CCC']);
    const usage = await catalog.admin.query('SELECT molecules FROM catalog.org_usage WHERE org_id = $1', [small.orgId]);
    expect(usage.rows).toEqual([{ molecules: '3' }]);
  });
});

describe('organizations', () => {
  test.each([
    [OrganizationStatus.SUSPENDED, Code.FailedPrecondition, 'TENANT_SUSPENDED', 'TENANT_SUSPENDED'],
    [OrganizationStatus.READ_ONLY, Code.FailedPrecondition, 'STATE_CONFLICT', undefined],
    [OrganizationStatus.ERASED, Code.NotFound, 'ORGANIZATION_NOT_FOUND', 'ORGANIZATION_NOT_FOUND'],
  ])('one of status %s may not write', async (status, code, writing, reading) => {
    const one = organization({ status });
    catalog.identity.organizations.set(one.orgId, one);
    const client = await catalog.member(MoleculeService, one);
    const { orgId } = one;
    const error = await errorOf(client.registerMolecules({ orgId, requestId: uuidv7(), rows: rowsOf(['C']) }));
    expect([error.code, reasonOf(error)]).toEqual([code, writing]);
    const read = await client.listMolecules({ orgId }).then(() => undefined, reasonOf);
    expect(read).toBe(reading);
  });

  test('an unknown one is not found', async () => {
    const nobody = organization();
    const client = await catalog.member(MoleculeService, nobody);
    const { orgId } = nobody;
    const error = await errorOf(client.registerMolecules({ orgId, requestId: uuidv7(), rows: rowsOf(['C']) }));
    expect([error.code, reasonOf(error)]).toEqual([Code.NotFound, 'ORGANIZATION_NOT_FOUND']);
  });

  test('are asked for once in a while, not at every call', async () => {
    const one = organization();
    catalog.identity.organizations.set(one.orgId, one);
    const client = await catalog.member(MoleculeService, one);
    const before = catalog.identity.described;
    for (let call = 0; call < 5; call++) await client.listMolecules({ orgId: one.orgId });
    expect(catalog.identity.described - before).toBe(1);
    expect(await catalog.metrics.text()).toMatch(
      /cache_requests_total\{cache="catalog_organization",outcome="hit",service="catalog"\} [1-9]/,
    );
  });
});

describe('importing', () => {
  async function* batches(rows: { smiles: string; name: string }[], size: number, moleculeSetId = '') {
    for (let at = 0; at < rows.length; at += size) {
      yield { orgId: catalog.acme.orgId, moleculeSetId, rows: rows.slice(at, at + size) };
    }
  }

  test('counts lines over the whole stream and keeps the order in the set', async () => {
    const { orgId } = catalog.acme;
    const { moleculeSet } = await acmeSets.createMoleculeSet({ orgId, requestId: uuidv7(), name: 'imported' });
    const rows = Array.from({ length: 25 }, (_, index) => ({
      smiles: `N${'C'.repeat(index + 1)}F`,
      name: `f${index}`,
    }));
    rows[3]!.smiles = 'bad(';
    rows[20]!.smiles = '';
    rows[22]!.smiles = rows[21]!.smiles;
    const answer = await acme.importMolecules(batches(rows, 10, moleculeSet!.moleculeSetId));
    expect(answer).toMatchObject({ registered: 23n, created: 22n, rejected: 2n });
    expect(answer.rejections.map((row) => [row.line, row.reason])).toEqual([
      [4, 'UNPARSABLE'],
      [21, 'EMPTY'],
    ]);
    const { moleculeSetId } = moleculeSet!;
    const { members } = await acmeSets.listMoleculeSetMembers({ orgId, moleculeSetId, pageSize: 100 });
    const good = rows.filter((_, index) => index !== 3 && index !== 20);
    expect(members.map((one) => one.itemNo)).toEqual(good.map((_, index) => index + 1));
    expect(members.map((one) => one.canonicalSmiles.length)).toEqual(good.map((row) => row.smiles.length));
  });

  test('a message that breaks a rule ends the stream and names the field; what came before stays', async () => {
    const error = await errorOf(
      acme.importMolecules(
        (async function* () {
          yield { orgId: catalog.acme.orgId, rows: rowsOf(['CCBr', 'bromoethane']) };
          yield { orgId: catalog.acme.orgId, rows: [] };
        })(),
      ),
    );
    expect(error.code).toBe(Code.InvalidArgument);
    expect(violationsOf(error).map(({ field }) => field)).toEqual(['rows']);
  });

  test('another organization named in the middle is not found', async () => {
    const error = await errorOf(
      acme.importMolecules(
        (async function* () {
          yield { orgId: catalog.acme.orgId, rows: rowsOf(['CCBr']) };
          yield { orgId: catalog.globex.orgId, rows: rowsOf(['CCCl']) };
        })(),
      ),
    );
    expect(error.code).toBe(Code.NotFound);
    expect((await globex.listMolecules({ orgId: catalog.globex.orgId, query: 'CCCl' })).molecules).toEqual([]);
  });
});

describe('listing and changing', () => {
  test('pages cover everything once, newest first', async () => {
    const paged = organization();
    catalog.identity.organizations.set(paged.orgId, paged);
    const client = await catalog.member(MoleculeService, paged);
    const { orgId } = paged;
    const rows = Array.from({ length: 25 }, (_, index) => ({ smiles: 'C'.repeat(index + 1), name: `c${index + 1}` }));
    await client.registerMolecules({ orgId, requestId: uuidv7(), rows });
    const seen: string[] = [];
    let pageToken = '';
    do {
      const page = await client.listMolecules({ orgId, pageSize: 10, pageToken });
      seen.push(...page.molecules.map((one) => one.moleculeId));
      pageToken = page.nextPageToken;
    } while (pageToken !== '');
    expect(seen).toHaveLength(25);
    expect(seen).toEqual(seen.toSorted().toReversed());
  });

  test('a page token of another query, a forged one and garbage are refused', async () => {
    const { orgId } = catalog.acme;
    const { nextPageToken } = await acme.listMolecules({ orgId, pageSize: 1 });
    const forged = JSON.parse(Buffer.from(nextPageToken, 'base64url').toString()) as [string, string];
    forged[1] = `' OR true --`;
    for (const bad of [
      { pageToken: nextPageToken, query: 'ethanol' },
      { pageToken: nextPageToken, inchikey: 'BSYNRYMUTXBXSQ-UHFFFAOYSA-N' },
      { pageToken: Buffer.from(JSON.stringify(forged)).toString('base64url') },
      { pageToken: 'garbage' },
    ]) {
      const error = await errorOf(acme.listMolecules({ orgId, ...bad }));
      expect(error.code).toBe(Code.InvalidArgument);
      expect(violationsOf(error).map(({ field }) => field)).toEqual(['page_token']);
    }
  });

  test('finds by words of the names and the description, and by InChIKey', async () => {
    const { orgId } = catalog.acme;
    const { registered } = await acme.registerMolecules({
      ...ofAcme(),
      rows: rowsOf([ASPIRIN, 'Acetylsalicylic acid']),
    });
    const { moleculeId } = registered[0]!;
    const updateMask = { paths: ['description'] };
    await acme.updateMolecule({ ...ofAcme(), moleculeId, description: 'first marketed in 1899', updateMask });
    for (const filter of [
      { query: 'salicylic acetylsalicylic acid'.slice(10) },
      { query: '1899' },
      { inchikey: 'BSYNRYMUTXBXSQ-UHFFFAOYSA-N' },
      { query: 'marketed', inchikey: 'BSYNRYMUTXBXSQ-UHFFFAOYSA-N' },
    ]) {
      const found = await acme.listMolecules({ orgId, ...filter });
      expect(found.molecules.map((one) => one.moleculeId)).toEqual([moleculeId]);
    }
    expect((await acme.listMolecules({ orgId, query: 'unobtainium' })).molecules).toEqual([]);
  });

  test('a change names what it changes; the structure is not among it', async () => {
    const { registered } = await acme.registerMolecules({ ...ofAcme(), rows: rowsOf(['CCCl', 'chloroethane']) });
    const { moleculeId } = registered[0]!;
    const change = (paths: string[], name = 'ethyl chloride') =>
      acme.updateMolecule({ ...ofAcme(), moleculeId, name, updateMask: { paths } });
    expect((await change(['name'])).molecule).toMatchObject({ name: 'ethyl chloride', canonicalSmiles: 'CCCl' });
    for (const [paths, name, field] of [
      [['smiles'], 'x', 'update_mask'],
      [[], 'x', 'update_mask'],
      [['name'], ' ', 'name'],
      [['name'], 'a\u0000b', 'name'],
    ] as const) {
      const error = await errorOf(change([...paths], name));
      expect(violationsOf(error).map((one) => one.field)).toEqual([field]);
    }
  });

  test('a body over the limit and a batch over 1,000 rows are refused', async () => {
    const big = Array.from({ length: 900 }, () => ({ smiles: 'C'.repeat(5_000), name: '' }));
    expect((await errorOf(acme.registerMolecules({ ...ofAcme(), rows: big }))).code).toBe(Code.ResourceExhausted);
    const many = Array.from({ length: 1_001 }, () => ({ smiles: 'C', name: '' }));
    const error = await errorOf(acme.registerMolecules({ ...ofAcme(), rows: many }));
    expect(violationsOf(error).map(({ field }) => field)).toEqual(['rows']);
  });
});

test('what was done arrives in identity’s audit log, once', async () => {
  const rows = rowsOf(['CCI', 'iodoethane']);
  const request = { ...ofAcme(), rows };
  await acme.registerMolecules(request);
  await acme.registerMolecules(request);
  const mine = () => catalog.identity.audited.filter((one) => one.requestId === request.requestId);
  for (let wait = 0; wait < 100 && mine().length === 0; wait++) await new Promise((wake) => setTimeout(wake, 100));
  expect(mine()).toMatchObject([
    {
      orgId: catalog.acme.orgId,
      actorKind: 'user',
      action: 'molecules.create',
      outcome: 'ok',
      metadata: { registered: 1, created: 1, rejected: 0 },
    },
  ]);
});
