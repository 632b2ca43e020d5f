import { timestampDate } from '@bufbuild/protobuf/wkt';
import { createClient, type Transport } from '@connectrpc/connect';
import type { RedisProbe } from '@mad/cache';
import { TenantService, type GetFleetHealthResponse, type MetadataBackupHealth } from '@mad/proto/provisioner';
import { SECOND_MS } from '@mad/process';

/** Readiness in the seeds' shape: one entry per database server, tenants counted by state, never one by one. */
export interface Readiness {
  status: 'ready' | 'not_ready';
  /** True when something is wrong that does not keep the system from serving. */
  degraded: boolean;
  checks: {
    /** Every probe by name: true when it answered. `redis` only where Redis is used. */
    databases: Record<string, boolean>;
    metadata_db: boolean;
    /** Whether the key service that holds the master key answers; only where there is one. */
    key_service?: boolean;
    /** When the metadata database was archived (ISO; null: never), or why that is not known. */
    metadata_backup?: { time: string | null; overdue: boolean; error: string };
    /** Tenants by state, e.g. {"READY": 12}. */
    org_databases: Record<string, number>;
  };
  /** Milliseconds by probe. */
  latency_ms: Record<string, number>;
}

/** After this the fleet counts as unreachable. The provisioner gives each server 2 s: one that is gone must not take longer. */
const PROBE_MS = 3 * SECOND_MS;
const SICK = new Set(['FAILED']);

/**
 * Asks the provisioner, which probes the metadata database and every server once, and Redis where it is used. Not ready
 * only when the metadata database or every server is gone; one sick server or tenant degrades, and so do Redis, which
 * holds only what may be lost, and the key service: tenants in use do without it.
 */
export function readinessProbe(
  provisioner: Transport,
  serviceToken: () => Promise<string>,
  redis?: RedisProbe,
): () => Promise<Readiness> {
  const tenants = createClient(TenantService, provisioner);
  const fleet = async (): Promise<Readiness> => {
    try {
      const headers = { authorization: `Bearer ${await serviceToken()}` };
      return readinessOf(await tenants.getFleetHealth({}, { timeoutMs: PROBE_MS, headers }));
    } catch {
      const checks = { databases: { metadata: false }, metadata_db: false, org_databases: {} };
      return { status: 'not_ready', degraded: true, checks, latency_ms: {} };
    }
  };
  if (redis === undefined) return fleet;
  return async () => {
    const [readiness, latencyMs] = await Promise.all([fleet(), redis.ping().catch(() => undefined)]);
    return withRedis(readiness, latencyMs);
  };
}

/** Adds Redis to what is known; `undefined` when it did not answer. */
export function withRedis(readiness: Readiness, latencyMs: number | undefined): Readiness {
  const answered = latencyMs !== undefined;
  const { checks, latency_ms } = readiness;
  return {
    ...readiness,
    degraded: readiness.degraded || !answered,
    checks: { ...checks, databases: { ...checks.databases, redis: answered } },
    latency_ms: answered ? { ...latency_ms, redis: latencyMs } : latency_ms,
  };
}

/** What the fleet's health means for readiness. */
export function readinessOf(fleet: GetFleetHealthResponse): Readiness {
  const metadata = fleet.metadataLatencyMs >= 0;
  const servers = fleet.servers.map(({ name, healthy }) => [name, healthy] as const);
  const tenants = Object.entries(fleet.tenantsByState).map(([state, count]) => [state, Number(count)] as const);
  const anyServer = servers.length === 0 || servers.some(([, healthy]) => healthy);
  const allServers = servers.every(([, healthy]) => healthy);
  const { keyService, metadataBackup } = fleet;
  const sickTenants = tenants.some(([state, count]) => SICK.has(state) && count > 0);
  return {
    status: metadata && anyServer ? 'ready' : 'not_ready',
    degraded: !metadata || !allServers || sickTenants || keyService?.healthy === false,
    checks: {
      databases: { metadata, ...Object.fromEntries(servers) },
      metadata_db: metadata,
      ...(keyService === undefined ? {} : { key_service: keyService.healthy }),
      ...(metadataBackup === undefined ? {} : { metadata_backup: archived(metadataBackup) }),
      org_databases: Object.fromEntries(tenants),
    },
    latency_ms: {
      metadata: fleet.metadataLatencyMs,
      ...Object.fromEntries(fleet.servers.map(({ name, latencyMs }) => [name, latencyMs])),
      ...(keyService?.healthy ? { key_service: keyService.latencyMs } : {}),
    },
  };
}

function archived({ backupTime, overdue, error }: MetadataBackupHealth): Readiness['checks']['metadata_backup'] {
  return { time: backupTime === undefined ? null : timestampDate(backupTime).toISOString(), overdue, error };
}
