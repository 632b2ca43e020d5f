import { Readable, Writable } from 'node:stream';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { catalogMigrations } from '@mad/catalog';
import { identityMigrations } from '@mad/identity';
import { clientOptions, cycleMigrations, MIGRATOR, REPORTING } from '@mad/postgres';
import { provisionerMigrations } from '@mad/provisioner';
import { metadataDatabase, testCluster, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import { reportingMigrations } from '../src/reporting/schema.ts';
import { resultsDatabaseOf } from '../src/shell/results-database.ts';
import { sqlShell } from '../src/shell/shell.ts';
import { splitStatements } from '../src/shell/statements.ts';

/** The queries of the documents MAD began with, as printed there. */
const SEED_QUERIES = readFileSync(join(import.meta.dirname, 'support/seed-queries.sql'), 'utf8');

const [ACME, GLOBEX, EMPTY] = ['1', '2', '3'].map((n) => `01a1f000-0000-7000-8000-00000000000${n}`);
const services = [
  { schema: 'identity', migrations: identityMigrations },
  { schema: 'catalog', migrations: catalogMigrations },
  { schema: 'provisioner', migrations: provisionerMigrations },
];
const reporting = { schema: 'reporting', migrations: reportingMigrations, ownerRole: REPORTING };

const ROWS = `
  INSERT INTO identity.organizations (org_id, name, slug, status, region, quotas) VALUES
    ('${ACME}', 'Acme', 'acme', 'active', 'local', '{"max_concurrent_jobs": 10}'),
    ('${GLOBEX}', 'Globex', 'globex', 'active', 'local', '{"max_concurrent_jobs": 3}'),
    ('${EMPTY}', 'Empty', 'empty', 'active', 'local', '{"max_concurrent_jobs": 1}');
  INSERT INTO catalog.molecule_sets (org_id, molecule_set_id, name, size, created_by)
    SELECT o, o, 'library', 0, o FROM unnest('{${ACME},${GLOBEX}}'::uuid[]) o;
  INSERT INTO catalog.jobs_meta (org_id, pipeline_id, pipeline_version_id, molecule_set_id, parameters, plan, input_count,
      planned_tasks, created_by, status, ended_at, name, core_ms)
    SELECT o, o, o, o, '{"secret": 1}', '[]', 1, 1, o, s, CASE s WHEN 'completed' THEN now() END, 'hidden',
      CASE o WHEN '${ACME}' THEN 1800000 ELSE 0 END
    FROM (VALUES ('${ACME}'::uuid, 'completed'::catalog.job_status), ('${ACME}', 'completed'), ('${ACME}', 'pending'),
      ('${GLOBEX}', 'completed')) v (o, s);`;

let db: TestDatabase;
let admin: pg.Client;

beforeAll(async () => {
  db = await metadataDatabase({ services: [...services, reporting] });
  admin = new pg.Client(clientOptions(db.adminUrl));
  await admin.connect();
  await admin.query(ROWS);
});
afterAll(async () => {
  await admin.end();
  await db.drop();
});

/** What the shell says to these lines, typed into it. */
async function typed(lines: string, options: { readOnly?: boolean; json?: boolean } = {}) {
  const texts = { output: '', errors: '' };
  const into = (name: 'output' | 'errors') =>
    new Writable({
      write(chunk, _encoding, done) {
        texts[name] += String(chunk);
        done();
      },
    });
  const code = await sqlShell({
    urlOf: (database) => testCluster().adminUrlTo(database),
    database: db.name,
    readOnly: options.readOnly ?? true,
    json: options.json ?? false,
    input: Readable.from([lines]),
    output: into('output'),
    errors: into('errors'),
  });
  return { code, ...texts };
}

/** Answers of the shell, each a JSON line. */
async function answers(sql: string): Promise<{ columns: string[]; rows: (string | null)[][] }[]> {
  const { code, output, errors } = await typed(sql, { json: true });
  expect([code, errors]).toEqual([0, '']);
  return output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { columns: string[]; rows: (string | null)[][] });
}

async function under(role: string, ...statements: string[]): Promise<Record<string, unknown>[]> {
  const client = new pg.Client(clientOptions(db.url(role)));
  await client.connect();
  try {
    let rows: Record<string, unknown>[] = [];
    for (const sql of statements) rows = (await client.query(sql)).rows as Record<string, unknown>[];
    return rows;
  } finally {
    await client.end();
  }
}

describe('the queries of the seeds, as printed', () => {
  test('run one after another, comments and all', async () => {
    const [jobs, connections, sizes, ...more] = await answers(SEED_QUERIES);
    expect(more).toEqual([]);
    expect(jobs!.columns).toEqual(['org_name', 'total_jobs', 'job_limit']);
    expect(jobs!.rows.toSorted(([a], [b]) => (a! < b! ? -1 : 1))).toEqual([
      ['Acme', '3', '10'],
      ['Empty', '0', '1'],
      ['Globex', '1', '3'],
    ]);
    expect(connections!.columns).toEqual(['datname', 'state', 'connections']);
    expect(connections!.rows.find(([database]) => database === db.name)).toBeDefined();
    expect(sizes!.columns).toEqual(['datname', 'size']);
    expect(sizes!.rows.find(([database]) => database === db.name)![1]).toMatch(/^\d+ (kB|MB)$/);
  });

  test('show people a table', async () => {
    const { output } = await typed("SELECT slug, quotas FROM organizations WHERE slug = 'acme';\n");
    expect(output).toBe(
      ['slug | quotas', '-----+----------------------------', 'acme | {"max_concurrent_jobs": 10}', '(1 row)', ''].join(
        '\n',
      ),
    );
  });
});

describe('the reporting views', () => {
  test('tell every organization at a glance', async () => {
    const [summary] = await answers(
      'SELECT slug, total_jobs, pending_jobs, completed_jobs, job_limit, molecules, members, database_state FROM organization_summary ORDER BY slug;',
    );
    expect(summary!.rows).toEqual([
      ['acme', '3', '1', '2', '10', '0', '0', null],
      ['empty', '0', '0', '0', '1', '0', '0', null],
      ['globex', '1', '0', '1', '3', '0', '0', null],
    ]);
  });

  test('tell what each used, by month and user', async () => {
    const [usage] = await answers(
      `SELECT slug, month ~ '^20[0-9]{2}-[0-9]{2}$' AS month, sum(jobs) AS jobs, sum(core_hours) AS core_hours
       FROM organization_usage GROUP BY 1, 2 ORDER BY 1;`,
    );
    expect(usage!.rows).toEqual([
      ['acme', 't', '3', '1.500'],
      ['globex', 't', '1', '0.000'],
    ]);
  });

  test('hold nothing of what jobs keep confidential, and of people their ids alone', async () => {
    const [columns] = await answers(
      `SELECT a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
       WHERE c.relnamespace = 'catalog'::regnamespace AND c.relname = 'jobs_meta'
         AND col_description(c.oid, a.attnum) ~ '^(Confidential|PII)'
         AND has_column_privilege('mad_reporting', c.oid, a.attnum, 'SELECT');`,
    );
    expect(columns!.rows).toEqual([['created_by']]);
  });

  test.each(services.flatMap(({ schema }) => [`mad_${schema}`, `mad_${schema}_system`]))(
    'are shut to %s, whose rights end at its own organization',
    async (role) => {
      for (const view of ['organizations', 'jobs_meta', 'organization_summary', 'organization_usage']) {
        await expect(under(role, `SELECT * FROM reporting.${view}`)).rejects.toMatchObject({ code: '42501' });
      }
    },
  );

  test('are open to a reader, who reads nothing else and writes nothing', async () => {
    const password = new URL(db.url('mad_catalog')).password;
    const ann = `mad_test_ann_${db.name.slice(-8)}`;
    await admin.query(`CREATE ROLE ${ann} LOGIN PASSWORD '${password}' IN ROLE mad_reporting_reader`);
    const url = new URL(db.adminUrl);
    url.username = ann;
    url.password = password;
    const client = new pg.Client(clientOptions(url.href));
    await client.connect();
    try {
      const { rows } = await client.query('SELECT org_id FROM reporting.jobs_meta');
      expect(rows).toHaveLength(4);
      await client.query('SET search_path = reporting');
      expect((await client.query(splitStatements(SEED_QUERIES).statements[0]!)).rows).toHaveLength(3);
      for (const refused of [
        'SELECT * FROM identity.organizations',
        'SELECT * FROM catalog.jobs_meta',
        'UPDATE reporting.organizations SET name = name',
        'DELETE FROM reporting.jobs_meta',
        'SET ROLE mad_reporting',
        'CREATE TABLE reporting.mine (a int)',
      ]) {
        await expect(client.query(refused)).rejects.toMatchObject({ code: '42501' });
      }
    } finally {
      await client.end();
      await admin.query(`DROP ROLE ${ann}`);
    }
  });

  test('go up, down to nothing, and up again', async () => {
    const fresh = await metadataDatabase({ services: [...services, { ...reporting, migrations: [] }] });
    try {
      const url = testCluster().url(MIGRATOR, fresh.name);
      const cycle = await cycleMigrations({ url, ...reporting, ownerRole: REPORTING });
      expect(cycle.first.length).toBeGreaterThan(20);
      expect([cycle.none, cycle.notUndone]).toEqual([[], undefined]);
      expect(cycle.second).toEqual(cycle.first);
    } finally {
      await fresh.drop();
    }
  });
});

describe('the shell', () => {
  test('reads only, and says how to write', async () => {
    const write = `UPDATE identity.organizations SET name = 'Acme Labs' WHERE slug = 'acme';\n`;
    const refused = await typed(write);
    expect(refused.code).toBe(1);
    expect(refused.errors).toBe(
      'ERROR: cannot execute UPDATE in a read-only transaction\nHINT: the shell reads only; start it with --write\n',
    );
    expect(
      await typed(`${write}UPDATE identity.organizations SET name = 'Acme' WHERE slug = 'acme';`, { readOnly: false }),
    ).toEqual({
      code: 0,
      output: 'UPDATE 1\nUPDATE 1\n',
      errors: '',
    });
  });

  test('knows the backslash commands people type', async () => {
    const { code, output, errors } = await typed(
      [
        '\\dt catalog.*',
        '\\dv',
        '\\dT catalog.job_status',
        '\\d catalog.jobs_meta',
        '\\dn',
        '\\l mad_test*',
        '\\conninfo',
        '\\q',
      ].join('\n'),
    );
    expect([code, errors]).toEqual([0, '']);
    for (const expected of [
      /catalog\s+\| molecules\s+\| partitioned table \| mad_catalog_owner/,
      /reporting \| jobs_meta\s+\| view/,
      'pending, queued, running, completed, failed, cancelled',
      'Table "catalog.jobs_meta": What users asked for',
      /job_id\s+\| uuid\s+\| not null \| gen_random_uuid\(\)/,
      'Indexes:\n    "idx_jobs_meta_checked_at" btree (checked_at)',
      '"jobs_meta_org" for all to mad_catalog using',
      'Referenced by:\n    task_queue "task_queue_job_id_fkey"',
      /provisioner\s+\| mad_provisioner_owner/,
      `database ${db.name} as`,
    ]) {
      expect(output).toMatch(expected);
    }
    // Partitions are their table's affair.
    expect(output).not.toMatch(/catalog\s+\| molecules_/);
  });

  test('goes over to another database and stays where it is when that does not exist', async () => {
    const { output, errors, code } = await typed('\\c postgres\nSELECT current_database();\n\\c nowhere\n');
    expect(output).toContain('current_database\n----------------\npostgres');
    expect(errors).toBe('ERROR: database "nowhere" does not exist\n');
    expect(code).toBe(1);
  });

  test('shows one record below the other on \\x', async () => {
    const { output } = await typed(`\\x\nSELECT 1 AS a, NULL AS "long name";\n`);
    expect(output).toBe('Expanded display is on.\n-[ RECORD 1 ]-\na         | 1\nlong name |\n');
  });

  test.each(['\\copy t from x', '\\timing', '\\!'])('says of %s that it is not known, and what is', async (line) => {
    const { code, errors } = await typed(`${line}\n`);
    expect(code).toBe(1);
    expect(errors).toMatch(/^ERROR: \\.+ is not known here; \\\? lists what is\n$/);
  });

  test('tells a mistake, ends a pipe at it, and finds no relation that is not there', async () => {
    expect(await typed('SELECT nonsense;\nSELECT 1;\n')).toMatchObject({ code: 1, output: '' });
    expect((await typed('\\d nothing_here\n')).errors).toBe('ERROR: there is no relation nothing_here\n');
  });

  test('finds an organization’s results database, or says why not', async () => {
    await expect(resultsDatabaseOf(db.adminUrl, 'nobody')).rejects.toThrow('no organization nobody');
    await expect(resultsDatabaseOf(db.adminUrl, 'empty')).rejects.toThrow('empty has no results database yet');
  });
});

describe('statements', () => {
  test.each([
    ['two on one line', 'SELECT 1; SELECT 2;', ['SELECT 1;', 'SELECT 2;'], ''],
    ['a semicolon in quotes', `SELECT ';''x' AS "a;b";`, [`SELECT ';''x' AS "a;b";`], ''],
    ['an escape', `SELECT E'\\';' ;`, [`SELECT E'\\';' ;`], ''],
    ['a word that ends in E', `SELECT nameE'\\';`, [`SELECT nameE'\\';`], ''],
    ['dollar quotes', 'DO $a$ BEGIN; $$ ; END $a$;', ['DO $a$ BEGIN; $$ ; END $a$;'], ''],
    ['a comment to the end of the line', 'SELECT 1 -- one;\n;', ['SELECT 1 -- one;\n;'], ''],
    ['comments alone', '-- nothing;\n/* ; /* nested ; */ ; */\n', [], ''],
    ['an open quote', `SELECT 'a;\n`, [], `SELECT 'a;\n`],
    ['an open comment', 'SELECT 1; /* a;\n', ['SELECT 1;'], ' /* a;\n'],
    ['an open statement', 'SELECT 1;\nSELECT\n', ['SELECT 1;'], '\nSELECT\n'],
    ['nothing but semicolons', ';;\n;', [], ''],
  ])('%s', (_what, text, statements, rest) => {
    expect(splitStatements(text)).toEqual({ statements, rest });
  });

  test('come out the same however the text is cut into lines', () => {
    const piece = fc.oneof(
      fc.constantFrom(
        'SELECT 1',
        ';',
        "'a;b'",
        '"c;d"',
        '-- e;\n',
        '/* f; */',
        '$$g;$$',
        '$h$;$$;$h$',
        '\n',
        ' ',
        "E'\\';'",
      ),
      fc.stringMatching(/^[a-z0-9 ]{0,4}$/),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), (pieces) => {
        const text = `${pieces.join(' ')}\n`;
        const whole = splitStatements(text);
        const found: string[] = [];
        let rest = '';
        for (const line of text.split(/(?<=\n)/)) {
          const { statements, rest: left } = splitStatements(`${rest}${line}`);
          found.push(...statements);
          rest = left;
        }
        const solid = (statement: string) => statement.replaceAll(/^(\s|--[^\n]*\n|\/\* f; \*\/)+/g, '');
        expect(found.map(solid)).toEqual(whole.statements.map(solid));
      }),
    );
  });
});
