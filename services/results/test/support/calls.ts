import type { Metrics } from '@mad/process';

/** Calls that had a connection to a tenant so far, in all processes of results that tell these metrics. */
export async function callsSoFar(metrics: Metrics): Promise<number> {
  return Number(/^tenant_connection_wait_seconds_count\{.*\} (\d+)$/m.exec(await metrics.text())![1]);
}
