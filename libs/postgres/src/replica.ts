import { SECOND_MS } from '@mad/process';
import type pg from 'pg';

/** A replica further behind is not asked. */
const MAX_LAG_MS = 5 * SECOND_MS;
const CHECK_EVERY_MS = SECOND_MS;

/** An idle primary sends nothing: a replica that has replayed all it received is not behind, however long ago that was. */
const LAG_SQL = `
  SELECT CASE WHEN NOT pg_is_in_recovery() OR pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
    ELSE coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()) * 1000, 1e9) END::float8 AS lag_ms`;

/** Chooses between a primary and its replica; looks at the replica's lag once a second at most. */
export function replicaChooser(primary: pg.Pool, replica: pg.Pool | undefined): () => Promise<pg.Pool> {
  let checkedAt = 0;
  let fresh = false;
  return async () => {
    if (replica === undefined) return primary;
    if (Date.now() - checkedAt > CHECK_EVERY_MS) {
      checkedAt = Date.now();
      fresh = await replica.query<{ lag_ms: number }>(LAG_SQL).then(
        ({ rows }) => rows[0]!.lag_ms <= MAX_LAG_MS,
        () => false,
      );
    }
    return fresh ? replica : primary;
  };
}
