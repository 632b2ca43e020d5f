import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { catalogMigrations } from '@mad/catalog';
import { identityMigrations } from '@mad/identity';
import { clientOptions, MIGRATOR } from '@mad/postgres';
import { provisionerMigrations } from '@mad/provisioner';
import { metadataDatabase, testCluster, type TestDatabase } from '@mad/testing';
import pg from 'pg';
import { diagram, diagramType, shortened } from '../src/schema-docs/diagram.ts';
import { makeResultsDatabase, schemaPages } from '../src/schema-docs/documented.ts';
import { readSchema } from '../src/schema-docs/read-schema.ts';
import { stalePages } from '../src/schema-docs/write-pages.ts';

const FOLDER = fileURLToPath(new URL('../../../docs/schema', import.meta.url));
const results = `mad_test_docs_${process.pid}`;
let db: TestDatabase;
let pages: Map<string, string>;

async function asAdmin(url: string, sql: string): Promise<void> {
  const client = new pg.Client(clientOptions(url));
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

beforeAll(async () => {
  const cluster = testCluster();
  const schemas = { identity: identityMigrations, catalog: catalogMigrations, provisioner: provisionerMigrations };
  const services = Object.entries(schemas).map(([schema, migrations]) => ({ schema, migrations }));
  db = await metadataDatabase({ services });
  await makeResultsDatabase({ adminUrl: cluster.adminUrl, migratorUrl: cluster.url(MIGRATOR, 'postgres') }, results);
  pages = await schemaPages({ metadata: db.adminUrl, results: cluster.adminUrlTo(results) });
});
afterAll(async () => {
  await asAdmin(testCluster().adminUrl, `DROP DATABASE IF EXISTS ${results} WITH (FORCE)`);
  await db.drop();
});

test('docs/schema says what the migrations make; if not, run: npx mad db erd', async () => {
  expect([...pages.keys()]).toEqual(['README.md', 'identity.md', 'catalog.md', 'provisioner.md', 'results.md']);
  expect(await stalePages(FOLDER, pages)).toEqual([]);
});

test('a page that is missing or differs by a character is stale', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'mad-docs-'));
  try {
    for (const [name, text] of pages) if (name !== 'README.md') await writeFile(join(folder, name), text);
    await writeFile(join(folder, 'catalog.md'), `${pages.get('catalog.md')} `);
    expect(await stalePages(folder, pages)).toEqual(['README.md', 'catalog.md']);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

test('the totals are the sums of the pages, and above what the platform promises', async () => {
  const index = await readFile(join(FOLDER, 'README.md'), 'utf8');
  const totals = (label: string) =>
    [...new RegExp(`\\*\\*${label}\\*\\*.*$`, 'm').exec(index)![0].matchAll(/\*\*(\d+)\*\*/g)].map(([, n]) =>
      Number(n),
    );
  const [tables, , , indexes, constraints] = totals('metadata database');
  const count = (heading: string, names: string[]) =>
    names
      .map((name) => Number(new RegExp(`^## ${heading} \\((\\d+)\\)$`, 'm').exec(pages.get(`${name}.md`)!)![1]))
      .reduce((sum, one) => sum + one);
  const names = ['identity', 'catalog', 'provisioner'];
  expect([tables, indexes, constraints]).toEqual(['Tables', 'Indexes', 'Constraints'].map((one) => count(one, names)));
  expect(tables).toBeGreaterThanOrEqual(22);
  expect(indexes).toBeGreaterThanOrEqual(15);
  expect(constraints).toBeGreaterThanOrEqual(25);
  expect(totals('each organization')[0]).toBeGreaterThanOrEqual(8);
});

describe('a diagram', () => {
  test('is made of lines that Mermaid reads, for every schema', () => {
    const lines = [...pages.values()].flatMap((page) => {
      return /```mermaid\n([^]*?)\n```/.exec(page)?.[1]!.split('\n') ?? [];
    });
    expect(lines.length).toBeGreaterThan(300);
    const readable = [
      /^erDiagram$/,
      /^ {2}[a-z_]+ \{$/,
      /^ {2}\}$/,
      /^ {4}[A-Za-z][A-Za-z0-9_()[\]-]* [a-z_0-9]+( (PK|FK|UK)(, (PK|FK|UK))*)?( "[^"]+")?$/,
      /^ {2}[a-z_]+ (\|\||\|o)--(o\{|o\|) [a-z_]+ : "[^"]+"$/,
    ];
    expect(lines.filter((line) => !readable.some((form) => form.test(line)))).toEqual([]);
  });

  test('shows keys, relations with their numbers, and partitioned tables once', async () => {
    await asAdmin(
      db.adminUrl,
      `CREATE SCHEMA drawn;
       CREATE TYPE drawn.mood AS ENUM ('good', 'bad');
       CREATE TABLE drawn.parents (a int, b numeric(10,4) NOT NULL UNIQUE, PRIMARY KEY (a));
       CREATE TABLE drawn.children (id int PRIMARY KEY REFERENCES drawn.parents, maybe int REFERENCES drawn.parents,
         always int NOT NULL REFERENCES drawn.parents, mood drawn.mood NOT NULL) PARTITION BY HASH (id);
       CREATE TABLE drawn.children_0 PARTITION OF drawn.children FOR VALUES WITH (MODULUS 2, REMAINDER 0);
       CREATE INDEX by_mood ON drawn.children (mood) WHERE id > 3;
       COMMENT ON COLUMN drawn.children.mood IS 'Internal: a "state"; more of it';`,
    );
    const model = await readSchema(db.adminUrl, 'drawn');
    expect(diagram(model).split('\n')).toEqual([
      'erDiagram',
      '  children {',
      '    integer id PK, FK',
      '    integer maybe FK "null"',
      '    integer always FK',
      `    mood mood "Internal: a 'state'"`,
      '  }',
      '  parents {',
      '    integer a PK',
      '    numeric(10) b UK',
      '  }',
      '  parents ||--o{ children : "always"',
      '  parents ||--o| children : "id"',
      '  parents |o--o{ children : "maybe"',
    ]);
    expect(model.tables[0]).toMatchObject({ name: 'children', partitionedBy: 'HASH (id)' });
    expect(model.types).toEqual([{ name: 'mood', kind: 'enum', values: 'good, bad' }]);
    expect(model.indexes.map(({ name, ofConstraint, definition }) => [name, ofConstraint, definition])).toContainEqual([
      'by_mood',
      false,
      'btree (mood) WHERE id > 3',
    ]);
    // One page for one schema, however often it is read.
    expect(await readSchema(db.adminUrl, 'drawn')).toEqual(model);
  });

  test.each([
    ['timestamp(3) with time zone', 'timestamptz(3)'],
    ['timestamp with time zone', 'timestamptz'],
    ['double precision', 'float8'],
    ['catalog.job_status', 'job_status'],
    ['public.citext', 'citext'],
    ['numeric(10,4)', 'numeric(10)'],
    ['text[]', 'text[]'],
    ['interval day to second', 'interval_day_to_second'],
  ])('spells %s as %s', (type, spelled) => {
    expect(diagramType(type, 'catalog')).toBe(spelled);
  });

  test('cuts comments at their first clause, and long ones at a length', () => {
    expect(shortened('Internal: one; two')).toBe('Internal: one');
    expect(shortened('x'.repeat(80))).toBe(`${'x'.repeat(59)}…`);
  });
});
