import { defineMigration, rlsSql } from '@mad/postgres';

/** Each table after those that refer to it. */
const TABLES = [
  'task_queue',
  'org_queue_depth',
  'jobs_meta',
  'org_queue',
  'molecule_set_members',
  'molecule_sets',
  'molecules',
  'org_usage',
  'artifacts',
  'pipeline_versions',
  'pipelines',
  'task_definitions',
  'idempotency_keys',
];

/** What was removed of organizations that were erased, and the one door through which immutable rows are removed. */
export const Erasures = defineMigration(import.meta.url, {
  up: `
CREATE TABLE catalog.erasures (
  org_id uuid NOT NULL,
  counts jsonb NOT NULL DEFAULT '{}',
  begun_at timestamptz(3) NOT NULL DEFAULT now(),
  CONSTRAINT erasures_pkey PRIMARY KEY (org_id),
  CONSTRAINT erasures_counts_check CHECK (jsonb_typeof(counts) = 'object')
);
COMMENT ON TABLE catalog.erasures IS 'Internal: rows removed of organizations that were erased, by table. Owner: catalog';
${rlsSql({ schema: 'catalog', table: 'erasures', systemMay: true })}
REVOKE ALL ON catalog.erasures FROM mad_catalog;
REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON catalog.erasures FROM mad_catalog_system;

-- Sets, published versions and artifacts never change: no login may delete them. This removes a whole organization, some
-- thousands of rows in each call, and counts them in the same transaction.
CREATE FUNCTION catalog.erase_organization(p_org_id uuid, p_limit integer, OUT done boolean, OUT counts jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = catalog, public, pg_temp AS $$
DECLARE
  target text;
  gone integer;
  room integer := p_limit;
BEGIN
  INSERT INTO catalog.erasures AS e (org_id) VALUES (p_org_id)
    ON CONFLICT (org_id) DO UPDATE SET counts = e.counts RETURNING e.counts INTO counts;
  -- Whoever changes an organization's part of the queue holds this row first.
  PERFORM FROM catalog.org_queue q WHERE q.org_id = p_org_id FOR UPDATE;
  FOREACH target IN ARRAY ARRAY[${TABLES.map((table) => `'${table}'`).join(', ')}] LOOP
    -- All rows of an organization are in one partition, where a row's place is its own.
    EXECUTE format('DELETE FROM catalog.%1$I WHERE org_id = $1
      AND ctid = ANY (ARRAY(SELECT ctid FROM catalog.%1$I WHERE org_id = $1 LIMIT $2))', target) USING p_org_id, room;
    GET DIAGNOSTICS gone = ROW_COUNT;
    room := room - gone;
    counts := counts || jsonb_build_object(target, coalesce((counts ->> target)::bigint, 0) + gone);
    EXIT WHEN room <= 0;
  END LOOP;
  UPDATE catalog.erasures e SET counts = erase_organization.counts WHERE e.org_id = p_org_id;
  done := room > 0;
END $$;
REVOKE ALL ON FUNCTION catalog.erase_organization(uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION catalog.erase_organization(uuid, integer) TO mad_catalog_system;
COMMENT ON FUNCTION catalog.erase_organization(uuid, integer)
  IS 'Removes so many rows of an organization at most; answers whether nothing is left, and how many were removed in all';
`,
  down: `
DROP FUNCTION catalog.erase_organization(uuid, integer);
DROP TABLE catalog.erasures;
`,
});
