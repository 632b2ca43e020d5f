import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  clientOptions,
  cycleMigrations,
  entityDifferences,
  listConstraints,
  MIGRATOR,
  ownerRole,
  type EntitySchema,
  type MigrationClass,
} from '@mad/postgres';
import pg from 'pg';
import { testCluster } from './cluster.ts';

/** A database of one test, on the run's server. */
export interface SchemaDatabase {
  name: string;
  /** The superuser's URL to it. */
  adminUrl: string;
  drop(): Promise<void>;
}

/** What a schema promises. */
export interface SchemaSuiteOptions<D extends SchemaDatabase> {
  /** The Postgres schema; its owner is the role `mad_<schema>_owner`. */
  schema: string;
  migrations: readonly MigrationClass[];
  entities: readonly EntitySchema[];
  /** Makes a database with these migrations applied: all of them, or none. */
  open(migrations: readonly MigrationClass[]): Promise<D>;
  /** Statements that make rows that are right, for the others to collide with and refer to. */
  goodRows: string;
  /** By constraint: an UPDATE of the right rows, or an INSERT beside them, that breaks that constraint and no other. */
  badRows: Readonly<Record<string, string>>;
  /** The schema consists of more objects than this, so that no check of it passes on an empty one. */
  moreObjectsThan: number;
  /** `table.column` of all columns whose comment begins with `PII: `: they name or describe a person. */
  personal: readonly string[];
  /** `table.column` of all columns whose comment begins with `Confidential: `: an organization's own, or secrets. */
  confidential: readonly string[];
}

/** The suite's migrated database, for tests of one's own beside it. Only inside tests and hooks. */
export interface SchemaUnderTest<D extends SchemaDatabase> {
  db(): D;
  /** The superuser, with the schema first in its search path. */
  admin(): pg.Client;
}

/** What a partition calls its copy of the parent's constraint: "partition.copy" → the parent's name. */
async function partitionCopies(client: pg.Client, schema: string): Promise<Map<string, string>> {
  const { rows } = await client.query<{ copy: string; parent: string }>(
    `SELECT c.relname || '.' || k.conname AS copy, p.conname AS parent FROM pg_constraint k
       JOIN pg_constraint p ON p.oid = k.conparentid JOIN pg_class c ON c.oid = k.conrelid
     WHERE k.connamespace = $1::regnamespace`,
    [schema],
  );
  return new Map(rows.map(({ copy, parent }) => [copy, parent]));
}

/** The constraint that each bad row broke; `nothing` where it was let in, the error's text where it was another error. */
async function brokenBy(
  client: pg.Client,
  { schema, goodRows, badRows }: Pick<SchemaSuiteOptions<SchemaDatabase>, 'schema' | 'goodRows' | 'badRows'>,
): Promise<Record<string, string>> {
  const broken: Record<string, string> = {};
  await client.query('BEGIN');
  try {
    await client.query(goodRows);
    const copies = await partitionCopies(client, schema);
    for (const [name, sql] of Object.entries(badRows)) {
      await client.query('SAVEPOINT good');
      broken[name] = await client.query(sql).then(
        () => 'nothing',
        ({ table, constraint, message }: pg.DatabaseError) =>
          copies.get(`${table}.${constraint}`) ?? constraint ?? message,
      );
      await client.query('ROLLBACK TO SAVEPOINT good');
    }
  } finally {
    await client.query('ROLLBACK');
  }
  return broken;
}

/**
 * The tests that every schema passes: each constraint refuses a row, entities say what the migrations made, migrations go
 * up, down to nothing and up again, tables say what they are for and columns what is personal or confidential. Call it at
 * the top of a test file.
 */
export function schemaSuite<D extends SchemaDatabase>(options: SchemaSuiteOptions<D>): SchemaUnderTest<D> {
  const { schema, migrations, entities } = options;
  let db: D;
  let admin: pg.Client;

  beforeAll(async () => {
    db = await options.open(migrations);
    admin = new pg.Client(clientOptions(db.adminUrl));
    await admin.connect();
    await admin.query(`SET search_path = ${schema}, public`);
  });

  afterAll(async () => {
    await admin.end();
    await db.drop();
  });

  test('every named constraint refuses a row', async () => {
    const names = (await listConstraints(db.adminUrl, schema)).map(({ name }) => name);
    expect(Object.keys(options.badRows).sort()).toEqual(names.sort());
    expect(await brokenBy(admin, options)).toEqual(Object.fromEntries(names.map((name) => [name, name])));
  });

  test('entities say what the migrations made', async () => {
    expect(await entityDifferences({ url: db.adminUrl, schema, entities })).toEqual([]);
  });

  test('migrations go up, down and up again, and leave nothing in between', async () => {
    const empty = await options.open([]);
    try {
      const url = testCluster().url(MIGRATOR, empty.name);
      const cycle = await cycleMigrations({ url, ownerRole: ownerRole(schema), schema, migrations });
      expect(cycle.first.length).toBeGreaterThan(options.moreObjectsThan);
      expect(cycle.notUndone).toBeUndefined();
      expect(cycle.none).toEqual([]);
      expect(cycle.second).toEqual(cycle.first);
    } finally {
      await empty.drop();
    }
  });

  test('every table has a comment', async () => {
    const { rows } = await admin.query<{ relname: string }>(
      `SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND relkind IN ('r', 'p')
         AND NOT relispartition AND relname <> 'migrations' AND obj_description(oid, 'pg_class') IS NULL`,
      [schema],
    );
    expect(rows).toEqual([]);
  });

  test('columns that hold something personal or confidential say so', async () => {
    const { rows } = await admin.query<{ name: string; comment: string }>(
      `SELECT c.relname || '.' || a.attname AS name, coalesce(col_description(c.oid, a.attnum), '') AS comment
       FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
       WHERE c.relnamespace = $1::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition`,
      [schema],
    );
    const marked = (mark: string) => rows.filter(({ comment }) => comment.startsWith(mark)).map(({ name }) => name);
    expect(marked('PII: ').sort()).toEqual([...options.personal].sort());
    expect(marked('Confidential: ').sort()).toEqual([...options.confidential].sort());
    const authors = rows.filter(({ name }) => name.endsWith('.created_by'));
    expect(authors.filter(({ comment }) => !comment.startsWith('PII: '))).toEqual([]);
  });

  return { db: () => db, admin: () => admin };
}
