import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  copyName,
  databaseName,
  loginName,
  referenceName,
  replacedName,
  stockName,
  templateName,
} from '../src/domain/names.ts';
import {
  compareObjects,
  compareServer,
  databaseOf,
  isJudged,
  loginOf,
  type ServerFacts,
  type ServerIntent,
} from '../src/domain/reconcile.ts';
import { listObjects } from '../src/reconcile/look.ts';

const ORG = '01900000-0000-7000-8000-000000000001';
const OTHER = '01900000-0000-7000-8000-000000000002';
const OPERATION = '01900000-0000-7000-8000-00000000000f';
const SCHEMAS = ['results', 'results_two'];
const DIGEST = 'ab'.repeat(32);

const facts = (databases: string[], roles: string[] = []): ServerFacts => ({
  server: 's',
  databases: new Set(databases),
  roles: new Set(roles),
});
const intent = (more: Partial<ServerIntent> = {}): ServerIntent => ({
  server: 's',
  tenants: [],
  recorded: new Set(),
  stock: [],
  templates: new Map(),
  ...more,
});
const options = { schemas: SCHEMAS, live: new Set<string>() };
const kinds = (found: { kind: string; name: string }[]) => found.map(({ kind, name }) => `${kind} ${name}`);
const tenant = (more: Partial<ServerIntent['tenants'][number]> = {}): ServerIntent['tenants'][number] => ({
  orgId: ORG,
  schema: 'results',
  database: databaseName('results', ORG),
  state: 'ready',
  busy: false,
  roles: [loginName('results', ORG, 'a'), loginName('results', ORG, 'b')],
  ...more,
});

describe('names', () => {
  test('say whose a database or login is, of schemas that begin alike too', () => {
    expect(databaseOf(databaseName('results', ORG), SCHEMAS)).toMatchObject({ schema: 'results', orgId: ORG });
    expect(databaseOf(databaseName('results_two', ORG), SCHEMAS)).toMatchObject({ schema: 'results_two', orgId: ORG });
    expect(databaseOf(stockName('results', DIGEST), SCHEMAS)!.kind).toBe('orphan_stock');
    expect(databaseOf(copyName('results', OPERATION), SCHEMAS)!.kind).toBe('orphan_copy');
    expect(databaseOf(replacedName('results', OPERATION), SCHEMAS)!.kind).toBe('orphan_copy');
    expect(databaseOf(templateName('results', DIGEST), SCHEMAS)!.kind).toBe('orphan_template');
    expect(databaseOf(referenceName('results', DIGEST), SCHEMAS)!.kind).toBe('orphan_reference');
    expect(loginOf(loginName('results', ORG, 'b'), SCHEMAS)).toEqual({ schema: 'results', orgId: ORG });
  });

  test('that no rule of ours makes are nobody’s to drop (any name)', () => {
    for (const name of [
      'postgres',
      'mad_metadata',
      'mad_provisioner_admin',
      'mad_results_owner',
      'mad_results_app',
      'mad_results_reader',
      'mad_other_01900000000070008000000000000001',
      'mad_results_keep_my_data',
      'mad_results_01900000000070008000000000000001_backup',
    ]) {
      expect([name, databaseOf(name, SCHEMAS), loginOf(name, SCHEMAS)]).toEqual([name, undefined, undefined]);
    }
    const some = fc.string({ maxLength: 63 });
    fc.assert(
      fc.property(
        fc.oneof(
          some,
          some.map((rest) => `mad_results_${rest}`),
        ),
        (name) => {
          const of = databaseOf(name, SCHEMAS);
          const ours =
            /^mad_results(_two)?_([0-9a-f]{32}|(stock|copy|old|reference)_[0-9a-f]{16}|template_[0-9a-f]{16}(_draft)?)$/;
          expect(of !== undefined).toBe(ours.test(name));
        },
      ),
    );
  });
});

describe('a server', () => {
  test('that has what the rows say differs in nothing', () => {
    const seen = facts([databaseName('results', ORG)], tenant().roles as string[]);
    expect(compareServer(intent({ tenants: [tenant()] }), seen, seen, options)).toEqual([]);
  });

  test('has orphans: what nobody knows, and what is left of an erased tenant', () => {
    const names = [
      databaseName('results', OTHER),
      stockName('results', DIGEST),
      copyName('results', OPERATION),
      templateName('results', DIGEST),
      'mad_results_keep_my_data',
    ];
    const seen = facts(names, [loginName('results', OTHER, 'a'), 'mad_results_owner']);
    const templates = new Map([['results', new Set(['mad_results_template_0000000000000000'])]]);
    expect(kinds(compareServer(intent({ templates }), seen, seen, options))).toEqual([
      `orphan_database ${names[0]}`,
      `orphan_stock ${names[1]}`,
      `orphan_copy ${names[2]}`,
      `orphan_template ${names[3]}`,
      `orphan_role ${loginName('results', OTHER, 'a')}`,
    ]);
    const erased = [tenant({ state: 'erased', roles: [] })];
    const left = facts([databaseName('results', ORG)]);
    expect(kinds(compareServer(intent({ tenants: erased }), left, left, options))).toEqual([
      `orphan_database ${databaseName('results', ORG)}`,
    ]);
  });

  test('has none while somebody is at work with it, or answers for it, or it came or went between two looks', () => {
    const copy = copyName('results', OPERATION);
    const seen = facts([copy, databaseName('results', ORG)]);
    const none = facts([]);
    const live = new Set([OPERATION.replaceAll('-', '').slice(-16)]);
    const busy = [tenant({ busy: true, database: 'mad_results_elsewhere' })];
    expect(compareServer(intent({ tenants: busy }), seen, seen, { ...options, live })).toEqual([]);
    const recorded = new Set([copy, databaseName('results', ORG)]);
    expect(compareServer(intent({ recorded }), seen, seen, options)).toEqual([]);
    expect(compareServer(intent(), seen, none, options)).toEqual([]);
    expect(compareServer(intent(), none, seen, options)).toEqual([]);
    // An owner that did not say what its template is: none is judged.
    const template = facts([templateName('results', DIGEST)]);
    expect(
      compareServer(intent({ templates: new Map([['results', undefined]]) }), template, template, options),
    ).toEqual([]);
  });

  test('has lost what a tenant in use or the stock should have, and nothing of one that is being made or failed', () => {
    const none = facts([]);
    const stock = [
      { name: 'mad_results_stock_1', schema: 'results', state: 'ready' },
      { name: 'mad_results_stock_2', schema: 'results', state: 'making' },
    ];
    expect(kinds(compareServer(intent({ tenants: [tenant()], stock }), none, none, options))).toEqual([
      `lost_database ${databaseName('results', ORG)}`,
      `lost_role ${loginName('results', ORG, 'a')}`,
      `lost_role ${loginName('results', ORG, 'b')}`,
      'lost_stock mad_results_stock_1',
    ]);
    for (const state of ['requested', 'creating', 'failed', 'moving', 'restoring', 'erasing', 'erased'] as const) {
      expect(compareServer(intent({ tenants: [tenant({ state })] }), none, none, options)).toEqual([]);
    }
    expect(compareServer(intent({ tenants: [tenant({ busy: true })] }), none, none, options)).toEqual([]);
    const came = facts([databaseName('results', ORG)], tenant().roles as string[]);
    expect(compareServer(intent({ tenants: [tenant()] }), none, came, options)).toEqual([]);
  });
});

describe('the object store', () => {
  const archive = `orgs/${ORG}/backups/${OPERATION}/00ff`;
  const noted = { key: archive, orgId: ORG, schema: 'results', backupId: OPERATION, whole: true };
  const there = (present: boolean) => () => Promise.resolve(present);

  test('has orphans: archives without a row, and anything of an erased organization; artifacts are catalog’s', async () => {
    const keys = [archive, `orgs/${ORG}/artifacts/aa`, `orgs/${OTHER}/artifacts/bb`, 'orgs/strange'];
    const found = await compareObjects({ archives: [], erased: new Set([OTHER]) }, keys, there(true));
    expect(kinds(found)).toEqual([`orphan_archive ${archive}`, `orphan_object orgs/${OTHER}/artifacts/bb`]);
    expect(await compareObjects({ archives: [noted], erased: new Set() }, [archive], there(true))).toEqual([]);
    // Deleted between the listing and the rows.
    expect(await compareObjects({ archives: [], erased: new Set() }, [archive], there(false))).toEqual([]);
  });

  test('of however many objects those are remembered that may differ, and all are counted', async () => {
    const MANY = 200_000;
    const mine = [archive, `orgs/${ORG}/backups/${OPERATION}/11ff`, `orgs/${OTHER}/artifacts/bb`];
    const walked: string[] = [];
    async function* walk(folder: string): AsyncGenerator<string> {
      walked.push(folder);
      for (let number = 0; number < MANY; number += 1) yield `orgs/${ORG}/poses/${OPERATION}/${number}`;
      yield* mine;
      yield 'orgs/strange';
    }
    expect(await listObjects({ walk }, new Set([OTHER]))).toEqual({ judged: mine, count: MANY + 4 });
    expect(walked).toEqual(['orgs']);
  });

  test('whatever keys it has, those that are remembered differ as all of them do (any keys)', async () => {
    const orgId = fc.constantFrom(ORG, OTHER, OPERATION);
    const rest = fc.constantFrom(
      'artifacts/aa',
      `backups/${ORG}/00ff`,
      `backups/${OTHER}/11ff`,
      'backups/x',
      'exports/a/b',
    );
    const key = fc.oneof(
      fc.tuple(orgId, rest).map(([org, below]) => `orgs/${org}/${below}`),
      fc.string().map((name) => `orgs/${name}`),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(key),
        fc.uniqueArray(key),
        fc.uniqueArray(orgId),
        fc.boolean(),
        async (keys, archived, gone, present) => {
          const archives = archived.map((one) => ({ ...noted, key: one }));
          const erased = new Set(gone);
          const remembered = keys.filter((one) => isJudged(one, erased));
          const listed = new Set(keys);
          const isThere = (one: string) => Promise.resolve(listed.has(one) && present);
          const found = (some: string[]) => compareObjects({ archives, erased }, some, isThere);
          const orphans = async (some: string[]) =>
            (await found(some)).filter(({ kind }) => kind === 'orphan_archive' || kind === 'orphan_object');
          expect(await orphans(remembered)).toEqual(await orphans(keys));
          // Looked for again where the key was not remembered.
          if (present) expect(await found(remembered)).toEqual(await found(keys));
        },
      ),
    );
  });

  test('has lost archives that are whole by their rows', async () => {
    const found = await compareObjects({ archives: [noted], erased: new Set() }, [], there(false));
    expect(found).toMatchObject([{ kind: 'lost_archive', backupId: OPERATION }]);
    const unfinished = { ...noted, whole: false };
    expect(await compareObjects({ archives: [unfinished], erased: new Set() }, [], there(false))).toEqual([]);
    expect(await compareObjects({ archives: [noted], erased: new Set() }, [], there(true))).toEqual([]);
  });
});
