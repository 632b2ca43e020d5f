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
  const sealed = metrics.gauge({
    name: 'sealed_keys',
    help: 'Data keys and servers by the version of the master key they are sealed under: 0 lets a version be removed.',
    labelNames: ['master_key_version'],
    async collect() {
      const rows = await database.asSystem((tx) =>
        tx.query<{ version: number; count: number }>(
          `SELECT master_key_version AS version, count(*)::int AS count FROM (
             SELECT master_key_version FROM provisioner.data_keys
             UNION ALL SELECT master_key_version FROM provisioner.database_servers) k GROUP BY 1`,
        ),
      );
      sealed.reset();
      for (const { version, count } of rows) sealed.set({ master_key_version: String(version) }, count);
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
