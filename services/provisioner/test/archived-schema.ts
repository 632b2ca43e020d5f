import { defineMigration, type MigrationClass } from '@mad/postgres';
import type pg from 'pg';

/**
 * The trail of a tenant schema with everything an archive must carry: keys between tables in an order that names hide,
 * a table that refers to itself, partitions made later, a sequence, generated and identity columns, a trigger, and rows a
 * migration put in.
 */
export function archivedMigrations(schema: string): MigrationClass[] {
  const create = defineMigration('2026_01_05_1000_create_all.ts', {
    up: `
      CREATE TYPE ${schema}.mood AS ENUM ('glad', 'sad');
      CREATE TABLE ${schema}.zoos (zoo_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL);
      CREATE TABLE ${schema}.animals (
        animal_id uuid PRIMARY KEY, zoo_id integer NOT NULL REFERENCES ${schema}.zoos, mother uuid REFERENCES ${schema}.animals,
        name text, mood ${schema}.mood, weight double precision, photo bytea, facts jsonb, born timestamptz,
        shout text GENERATED ALWAYS AS (upper(name)) STORED);
      CREATE TABLE ${schema}.counters (name text PRIMARY KEY, value bigint NOT NULL);
      INSERT INTO ${schema}.counters VALUES ('animals', 0);
      CREATE SEQUENCE ${schema}.tickets;
      CREATE TABLE ${schema}.nothing (note text);
      CREATE TABLE ${schema}.visits (day date NOT NULL, ticket bigint NOT NULL, note text, PRIMARY KEY (day, ticket))
        PARTITION BY RANGE (day);
      CREATE TABLE ${schema}.visits_2026_01 PARTITION OF ${schema}.visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
      CREATE FUNCTION ${schema}.count_animals() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE ${schema}.counters SET value = value + 1 WHERE name = 'animals'; RETURN NULL; END $$;
      CREATE TRIGGER count_animals AFTER INSERT ON ${schema}.animals FOR EACH ROW EXECUTE FUNCTION ${schema}.count_animals();`,
    down: `DROP TABLE ${schema}.visits, ${schema}.nothing, ${schema}.counters, ${schema}.animals, ${schema}.zoos;
      DROP SEQUENCE ${schema}.tickets; DROP FUNCTION ${schema}.count_animals(); DROP TYPE ${schema}.mood`,
  });
  const stars = defineMigration('2026_01_06_1000_add_stars.ts', {
    up: `ALTER TABLE ${schema}.zoos ADD COLUMN stars integer NOT NULL DEFAULT 3`,
    down: `ALTER TABLE ${schema}.zoos DROP COLUMN stars`,
  });
  return [create, stars];
}

/** Fills a database of that schema with rows of every kind; `animals` of them. The superuser's connection. */
export async function fill(client: pg.ClientBase, schema: string, animals: number): Promise<void> {
  await client.query(`
    SET ROLE mad_${schema}_owner;
    CREATE TABLE ${schema}.visits_2026_02 (LIKE ${schema}.visits INCLUDING ALL);
    ALTER TABLE ${schema}.visits ATTACH PARTITION ${schema}.visits_2026_02 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
    INSERT INTO ${schema}.zoos (name) SELECT 'zoo ' || n FROM generate_series(1, 10) n;
    DELETE FROM ${schema}.zoos WHERE name = 'zoo 10';
    INSERT INTO ${schema}.animals (animal_id, zoo_id, mother, name, mood, weight, photo, facts, born)
      SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 1 + n % 9,
        CASE WHEN n % 7 = 0 THEN ('00000000-0000-7000-8000-' || lpad(to_hex(n + 1 - n % 2), 12, '0'))::uuid END,
        CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN E'tab\\tline\\nback\\\\slash\\r' WHEN 2 THEN '' ELSE repeat(md5(n::text), n % 90) END,
        CASE WHEN n % 2 = 0 THEN 'glad' ELSE 'sad' END::${schema}.mood,
        CASE n % 4 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' WHEN 2 THEN 0.1 + n / 3.0 ELSE 1e-300 END::float8,
        decode(md5(n::text), 'hex'), jsonb_build_object('n', n, 'ключ', 'значение'), timestamptz '2026-01-01' + n * interval '1.000001 s'
      FROM generate_series(1, ${animals}) n;
    INSERT INTO ${schema}.visits SELECT date '2026-01-15' + n % 40, nextval('${schema}.tickets'), 'visit ' || n FROM generate_series(1, 500) n;
    -- Holes and versions, as life makes them.
    UPDATE ${schema}.animals SET facts = facts || '{"seen": true}' WHERE animal_id::text LIKE '%3';
    RESET ROLE;`);
}

/** What a database holds, whatever the order on the disk. */
export async function contentOf(client: pg.ClientBase, schema: string): Promise<unknown> {
  const { rows } = await client.query(`
    SELECT (SELECT md5(string_agg(t::text, '|' ORDER BY zoo_id)) FROM ${schema}.zoos t) AS zoos,
      (SELECT md5(string_agg(t::text, '|' ORDER BY animal_id)) FROM ${schema}.animals t) AS animals,
      (SELECT count(*)::int FROM ${schema}.animals) AS animal_count,
      (SELECT md5(string_agg(t::text, '|' ORDER BY day, ticket)) FROM ${schema}.visits t) AS visits,
      (SELECT json_agg(t ORDER BY name) FROM ${schema}.counters t) AS counters,
      (SELECT last_value::int FROM ${schema}.tickets) AS tickets,
      (SELECT last_value::int FROM ${schema}.zoos_zoo_id_seq) AS zoo_ids`);
  return rows[0];
}
