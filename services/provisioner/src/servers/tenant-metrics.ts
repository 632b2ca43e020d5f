import type { Database } from '@mad/postgres';
import type { Metrics } from '@mad/process';

/** Gauges over the fleet, counted when metrics are read: tenants and servers by state, never one by one. */
export function registerFleetMetrics(metrics: Metrics, database: Database): void {
  const tenants = metrics.gauge({
    name: 'tenants',
    help: 'Tenant databases by state.',
    labelNames: ['state'],
    async collect() {
      const rows = await database.asSystem((tx) =>
        tx.query<{ state: string; count: number }>(
          'SELECT state, count(*)::int AS count FROM provisioner.tenants GROUP BY state',
        ),
      );
      tenants.reset();
      for (const { state, count } of rows) tenants.set({ state }, count);
    },
  });
  const unfinished = metrics.gauge({
    name: 'tenant_steps_unfinished',
    help: 'Tenants with a step to be done, by whether a process is doing it.',
    labelNames: ['held'],
    async collect() {
      const [row] = await database.asSystem((tx) =>
        tx.query<{ held: number; free: number }>(
          `SELECT count(*) FILTER (WHERE step_lease_until > now())::int AS held,
             count(*) FILTER (WHERE step_lease_until IS NULL OR step_lease_until <= now())::int AS free
           FROM provisioner.tenants WHERE step IS NOT NULL`,
        ),
      );
      unfinished.set({ held: 'true' }, row!.held);
      unfinished.set({ held: 'false' }, row!.free);
    },
  });
}
