import { defineMigration } from '@mad/postgres';

/**
 * How many tasks of other organizations the fair queue serves before a turn of one's own. A function of the owner's, so
 * that the login that serves users learns a sum, and sees no row of anybody else's.
 */
export const TasksAhead = defineMigration(import.meta.url, {
  up: `
CREATE FUNCTION catalog.tasks_ahead(wanted_engine text, turn double precision) RETURNS bigint
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
  SELECT coalesce(sum(least(d.queued, q.max_running - q.running, ceil((turn - q.vtime) * q.weight) - 1)), 0)::bigint
  FROM catalog.org_queue q
  JOIN (SELECT org_id, sum(queued) AS queued FROM catalog.org_queue_depth
    WHERE engine = wanted_engine AND queued > 0 GROUP BY org_id) d ON d.org_id = q.org_id
  WHERE q.org_id <> nullif(current_setting('app.current_org_id', true), '')::uuid
    AND q.queued > 0 AND q.running < q.max_running AND ceil((turn - q.vtime) * q.weight) > 1
$function$;
REVOKE EXECUTE ON FUNCTION catalog.tasks_ahead(text, double precision) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION catalog.tasks_ahead(text, double precision) TO mad_catalog;
COMMENT ON FUNCTION catalog.tasks_ahead(text, double precision)
  IS 'Tasks of other organizations that the fair queue serves for an engine before a clock shows turn';
`,
  down: 'DROP FUNCTION catalog.tasks_ahead(text, double precision);',
});
