import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { ServerSchema, TenantSchema, TenantState, type Server, type Tenant } from '@mad/proto/provisioner';
import type { SampleRow } from '../db/entities/placement.ts';
import type { ServerRow } from '../db/entities/server.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import type { TenantStateName } from '../domain/tenant-state.ts';

export function stateMessage(state: TenantStateName): TenantState {
  return TenantState[state.toUpperCase() as keyof typeof TenantState];
}

export function stateName(state: TenantState): TenantStateName {
  return TenantState[state].toLowerCase() as TenantStateName;
}

export function tenantMessage(row: TenantRow): Tenant {
  return create(TenantSchema, {
    orgId: row.org_id,
    schema: row.schema,
    serverId: row.server_id,
    databaseName: row.database_name,
    state: stateMessage(row.state),
    step: row.step ?? '',
    generation: BigInt(row.generation),
    schemaVersion: row.schema_version,
    lastError: row.last_error,
    labels: row.labels,
    createTime: timestampFromDate(row.created_at),
    updateTime: timestampFromDate(row.updated_at),
    provisionMs: BigInt(row.ready_at === null ? 0 : Math.max(1, row.ready_at.getTime() - row.created_at.getTime())),
  });
}

/** A server with what is counted and sampled of it. */
export type ListedServer = ServerRow &
  Pick<SampleRow, 'error' | 'size_bytes' | 'sessions' | 'active' | 'max_connections'> & {
    tenants: number;
    stock: number;
    standbys: { host: string; port: number; sslmode: string }[];
    sampled_at: Date | null;
  };

export function serverMessage(row: ListedServer): Server {
  return create(ServerSchema, {
    serverId: row.server_id,
    name: row.name,
    host: row.host,
    port: row.port,
    sslmode: row.sslmode,
    region: row.region,
    connectionBudget: row.connection_budget,
    maxTenants: row.max_tenants,
    tenants: row.tenants,
    stock: row.stock,
    draining: row.draining,
    createTime: timestampFromDate(row.created_at),
    labels: row.labels,
    reservedConnections: row.reserved_connections,
    sampleTime: row.sampled_at === null ? undefined : timestampFromDate(row.sampled_at),
    error: row.error,
    sizeBytes: BigInt(row.size_bytes),
    sessions: row.sessions,
    activeSessions: row.active,
    maxConnections: row.max_connections,
    standbys: row.standbys,
    promoteTime: row.promoted_at === null ? undefined : timestampFromDate(row.promoted_at),
  });
}
