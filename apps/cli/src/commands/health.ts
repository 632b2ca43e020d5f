import type { Command } from 'commander';
import { SECOND_MS, sleep, type Env } from '@mad/process';
import { action } from '../command.ts';
import { EXIT } from '../failure.ts';
import { table } from '../output.ts';
import type { Settings } from '../settings.ts';

/** One line of the health table. */
export interface Part {
  part: string;
  state: string;
  /** Milliseconds, null where there is nothing to measure. */
  latency_ms: number | null;
}

/** What the gateway's /ready answers. */
interface Readiness {
  status: string;
  degraded: boolean;
  checks: {
    databases: Record<string, boolean>;
    metadata_db: boolean;
    /** Only where a key service holds the master key. */
    key_service?: boolean;
    metadata_backup?: { time: string | null; overdue: boolean; error: string };
    org_databases: Record<string, number>;
  };
  latency_ms: Record<string, number>;
}

const WATCH_MS = 2 * SECOND_MS;
const PROBE_MS = 5 * SECOND_MS;

/** health: one look at every part of the system. */
export function healthCommand(mad: Command, env: Env): void {
  mad
    .command('health')
    .description('every part of the system, with latencies')
    .option('--watch', 'again and again')
    .action(
      action<{ watch?: boolean }>(env, async ({ settings, output, options }) => {
        for (;;) {
          const { healthy, parts, readiness } = await look(settings);
          const rows = parts.map((one) => [one.part, one.state, one.latency_ms === null ? '' : `${one.latency_ms} ms`]);
          output.answer({ ok: healthy, parts, readiness }, table(['part', 'state', 'latency'], rows));
          if (!healthy) process.exitCode = EXIT.unavailable;
          if (!options.watch) return;
          process.exitCode = EXIT.ok;
          await sleep(WATCH_MS);
        }
      }),
    );
}

/** Asks the gateway once. */
async function look(settings: Settings): Promise<{ healthy: boolean; parts: Part[]; readiness: Readiness | null }> {
  const began = performance.now();
  let readiness: Readiness | null = null;
  try {
    const response = await fetch(`${settings.url}/ready`, { signal: AbortSignal.timeout(PROBE_MS) });
    readiness = (await response.json()) as Readiness;
  } catch {
    return { healthy: false, parts: [{ part: 'Gateway', state: 'unreachable', latency_ms: null }], readiness };
  }
  const latency = Math.round(performance.now() - began);
  return { healthy: readiness.status === 'ready', parts: partsOf(readiness, latency), readiness };
}

/** The table the seeds draw: servers, cache, metadata, tenants. */
export function partsOf({ checks, latency_ms, status }: Readiness, gatewayMs: number): Part[] {
  const servers = Object.entries(checks.databases).filter(([name]) => name !== 'metadata' && name !== 'redis');
  const measured = (name: string) => {
    const ms = latency_ms[name];
    return ms === undefined || ms < 0 ? null : Math.round(ms);
  };
  const tenants = Object.entries(checks.org_databases).filter(([, count]) => count > 0);
  const sick = tenants.some(([state]) => state === 'FAILED');
  const redis = checks.databases.redis;
  const { key_service: keys, metadata_backup: backup } = checks;
  return [
    { part: 'Gateway', state: status === 'ready' ? 'healthy' : 'not ready', latency_ms: gatewayMs },
    ...servers.map(([name, ok]) => ({
      part: `PostgreSQL ${name}`,
      state: ok ? 'healthy' : 'unreachable',
      latency_ms: measured(name),
    })),
    {
      part: 'Redis',
      state: redis === undefined ? 'not used' : redis ? 'healthy' : 'unreachable',
      latency_ms: measured('redis'),
    },
    { part: 'Metadata DB', state: checks.metadata_db ? 'ready' : 'unreachable', latency_ms: measured('metadata') },
    ...(backup === undefined ? [] : [{ part: 'Metadata backup', state: backupText(backup), latency_ms: null }]),
    ...(keys === undefined
      ? []
      : [{ part: 'Key service', state: keys ? 'healthy' : 'unavailable', latency_ms: measured('key_service') }]),
    {
      part: 'Results DBs',
      state:
        tenants.length === 0
          ? 'none yet'
          : `${sick ? 'degraded' : 'ready'}: ${tenants.map(([state, count]) => `${count} ${state}`).join(', ')}`,
      latency_ms: null,
    },
  ];
}

function backupText({ time, overdue, error }: NonNullable<Readiness['checks']['metadata_backup']>): string {
  if (error !== '') return error;
  if (time === null) return 'none yet';
  return overdue ? `overdue: the last is of ${time}` : `of ${time}`;
}
