import type { Metrics } from '@mad/process';
import type { TenantsStatus } from './tenants.ts';

/** As the metric shows them. */
const BREAKER_VALUES = { closed: 0, half_open: 1, open: 2 } as const;

/** Gauges over the open tenants and their servers' connections, read when metrics are. */
export function registerTenantMetrics(metrics: Metrics, status: () => TenantsStatus): void {
  const connections = metrics.gauge({
    name: 'tenant_connections',
    help: 'Connections to tenant databases by server and state (open counts idle ones too).',
    labelNames: ['server', 'state'],
    collect() {
      for (const { server, limit, open: all, idle, waiting } of status().servers) {
        const counts = { limit, open: all, idle, waiting };
        for (const [state, count] of Object.entries(counts)) connections.set({ server, state }, count);
      }
    },
  });
  const breaker = metrics.gauge({
    name: 'tenant_server_breaker',
    help: 'Whether connections to a server of tenants are opened: 0 closed (yes), 1 half open (one tries), 2 open (no).',
    labelNames: ['server'],
    collect() {
      for (const one of status().servers) breaker.set({ server: one.server }, BREAKER_VALUES[one.breaker]);
    },
  });
  const answers = metrics.gauge({
    name: 'tenant_server_answers',
    help: '1 when a server of tenants gave its last sign of life, 0 when it did not.',
    labelNames: ['server'],
    collect() {
      for (const one of status().servers) {
        if (one.answers !== undefined) answers.set({ server: one.server }, one.answers ? 1 : 0);
      }
    },
  });
  const inFlight = metrics.gauge({
    name: 'tenant_calls_in_flight',
    help: 'Calls to tenant databases that run or wait for a connection.',
    collect() {
      inFlight.set(status().inFlight);
    },
  });
  const open = metrics.gauge({
    name: 'tenants_open',
    help: 'Organizations whose database is open here.',
    collect() {
      open.set(status().tenants);
    },
  });
  const live = metrics.gauge({
    name: 'tenant_change_log_live',
    help: '1 while the change log of the provisioner is heard.',
    collect() {
      live.set(status().live ? 1 : 0);
    },
  });
}

/** How long callers wait for a connection to a tenant: route, budget and opening together. Answers what to tell it. */
export function waitHistogram(metrics: Metrics): (seconds: number) => void {
  const wait = metrics.histogram({
    name: 'tenant_connection_wait_seconds',
    help: 'Time until a caller had a connection to a tenant database, refusals included.',
    buckets: [0.0001, 0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 15],
  });
  return (seconds) => wait.observe(seconds);
}
