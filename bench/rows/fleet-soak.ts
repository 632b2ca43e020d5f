import { setTimeout as delay } from 'node:timers/promises';
import { MINUTE_MS, SECOND_MS } from '@mad/process';
import type pg from 'pg';
import { startProgram } from '../child.ts';
import type { SoakNodeOptions, SoakNodeResult } from '../programs/soak-node.ts';
import { growthPercent } from '../regression.ts';
import { scaled, type Bench, type Row } from '../row.ts';
import { openBenchFleet } from '../tenant-fleet.ts';

const TENANTS = 1_000;
const NOISY = 6;
const CLIENTS = 100;
const READERS = 8;
/** What provisioner gives a server unless told otherwise. */
const BUDGET = 80;
const BACKENDS_EVERY_MS = 100;
/** Into how many spans the soak is divided, of which the second half tells the growth. */
const SPANS = 60;
const IDLE_MS = 30 * SECOND_MS;
/** Beyond the soak itself: a thousand tenants are opened once. */
const OPENING_MS = 10 * MINUTE_MS;

/** A thousand organizations of which a few ask most, beside six that never stop, for half an hour. */
export const fleetSoak: Row = {
  name: 'fleet-soak',
  soak: true,
  async run(bench) {
    const size = Number(process.env['BENCH_TENANTS'] ?? scaled(bench, TENANTS, 20));
    const fleet = await openBenchFleet(bench, size);
    try {
      const durationMs = bench.minutes * MINUTE_MS;
      const orgs = fleet.routes.map(({ orgId }) => orgId);
      const { system } = fleet;
      const options: SoakNodeOptions = {
        port: system.ports.provisioner,
        privateJwk: system.secrets.signingKeys.results.privateJwk,
        noisy: orgs.slice(0, NOISY),
        quiet: orgs.slice(NOISY),
        clients: CLIENTS,
        readers: READERS,
        idleMs: Math.min(IDLE_MS, durationMs),
        durationMs,
        sampleEveryMs: durationMs / SPANS,
      };
      const backends = watchBackends(fleet.admin, durationMs / SPANS, bench);
      const limit = durationMs + options.idleMs + OPENING_MS;
      const program = await startProgram<SoakNodeResult>('soak-node', [JSON.stringify(options)], limit);
      await program.stop();
      const { most, means } = await backends.stop();
      const seen = program.ready;
      const half = <T>(values: readonly T[]): T[] => values.slice(Math.floor(values.length / 2));
      const notes = {
        tenants: size,
        noisy: NOISY,
        clients_each: CLIENTS,
        minutes: bench.minutes,
        ...seen,
        backends: means,
      };
      const value = (name: string, unit: string, one: number, atMost?: number) => ({
        name: `fleet-soak-${name}`,
        unit,
        ours: [one],
        ...(atMost === undefined ? {} : { target: { of: 'value' as const, atMost } }),
        notes,
      });
      return [
        value('quiet-errors', 'errors', seen.quietErrors, 0),
        value('quiet-p99', '× idle', seen.p99 / seen.idleP99, 2),
        value('backends', 'at most', most, BUDGET),
        value('backends-growth', '% in the second half', growthPercent(half(means.slice(-SPANS))), 5),
        value('rss', 'MiB at most', Math.max(...seen.rss)),
        value('rss-growth', '% in the second half', growthPercent(half(seen.rss)), 5),
        value('noisy', 'reads/s', (seen.noisyReads * SECOND_MS) / durationMs),
      ];
    } finally {
      await fleet.close();
    }
  },
};

/** The most backends of ours that any look saw, and the mean of each span. */
function watchBackends(
  admin: pg.Client,
  spanMs: number,
  bench: Bench,
): { stop(): Promise<{ most: number; means: number[] }> } {
  const means: number[] = [];
  let most = 0;
  let stopped = false;
  const running = (async () => {
    while (!stopped) {
      const until = performance.now() + spanMs;
      let [sum, looks] = [0, 0];
      while (!stopped && performance.now() < until) {
        const { rows } = await admin.query<{ n: number }>(
          `SELECT count(*)::int AS n FROM pg_stat_activity WHERE starts_with(application_name, 'bench-')`,
        );
        sum += rows[0]!.n;
        looks += 1;
        most = Math.max(most, rows[0]!.n);
        await delay(BACKENDS_EVERY_MS);
      }
      if (stopped) break;
      means.push(sum / looks);
      bench.progress(
        `${((means.length * spanMs) / MINUTE_MS).toFixed(1)} min: ${(sum / looks).toFixed(1)} backends, at most ${most}`,
      );
    }
  })();
  return {
    async stop() {
      stopped = true;
      await running;
      return { most, means };
    },
  };
}
