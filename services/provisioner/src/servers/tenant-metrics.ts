import type { Database } from '@mad/postgres';
import type { Metrics } from '@mad/process';
import { sealedBySql } from '../secrets/master-keys.ts';

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
  const drifted = metrics.gauge({
    name: 'drifted_tenants',
    help: 'Tenants whose database differed from what its version makes at the last look, and those that could not be looked at.',
    labelNames: ['drift'],
    async collect() {
      const [row] = await database.asSystem((tx) =>
        tx.query<{ different: number; unknown: number }>(
          `SELECT count(*) FILTER (WHERE drift_count > 0)::int AS different,
             count(*) FILTER (WHERE drift_count IS NULL)::int AS unknown
           FROM provisioner.tenants WHERE drift_looked_at IS NOT NULL AND state <> 'erased'`,
        ),
      );
      drifted.set({ drift: 'different' }, row!.different);
      drifted.set({ drift: 'unknown' }, row!.unknown);
    },
  });
  const sealed = metrics.gauge({
    name: 'sealed_keys',
    help: 'Data keys and servers by the master key they are sealed under, its source and version: 0 lets one be removed.',
    labelNames: ['key_source', 'master_key_version'],
    async collect() {
      const rows = await database.asSystem((tx) =>
        tx.query<{ sealed_by: string; count: number }>(
          `SELECT sealed_by, count(*)::int AS count FROM (
             SELECT ${sealedBySql('wrapped_key')} AS sealed_by FROM provisioner.data_keys
             UNION ALL SELECT ${sealedBySql('provisioner_secret')} FROM provisioner.database_servers) k GROUP BY 1`,
        ),
      );
      sealed.reset();
      for (const { sealed_by: sealedBy, count } of rows) {
        const [source = '', version = ''] = sealedBy.split(':');
        sealed.set({ key_source: source, master_key_version: version }, count);
      }
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
