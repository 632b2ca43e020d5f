import type { Metrics } from '@mad/process';
import type pg from 'pg';

/** Gauges over a service's pools of the metadata database, read when metrics are. `pools` by what they are for. */
export function registerPoolMetrics(metrics: Metrics, pools: Readonly<Record<string, pg.Pool>>): void {
  const connections = metrics.gauge({
    name: 'database_connections',
    help: 'Connections to the metadata database by pool and state; waiting counts callers, limit is the pool size.',
    labelNames: ['pool', 'state'],
    collect() {
      for (const [pool, { totalCount, idleCount, waitingCount, options }] of Object.entries(pools)) {
        const counts = { open: totalCount, idle: idleCount, waiting: waitingCount, limit: options.max };
        for (const [state, count] of Object.entries(counts)) connections.set({ pool, state }, count);
      }
    },
  });
}
