import { create } from '@bufbuild/protobuf';
import { durationFromMs } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import { SECOND_MS } from '@mad/process';
import { RouteSchema, RouteService, type Route } from '@mad/proto/provisioner';
import { bind, rpcError, type BoundService } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import type { CredentialRow, DataKeyRow } from '../db/entities/secret.ts';
import type { ServerRow } from '../db/entities/server.ts';
import type { TenantRow } from '../db/entities/tenant.ts';
import { isReadable } from '../domain/tenant-state.ts';
import { openPassword, unwrapDataKey } from '../secrets/data-keys.ts';
import type { MasterKeys } from '../secrets/master-keys.ts';
import { leaseConnections, releaseConnections } from '../shares/lease.ts';
import { stateMessage } from './messages.ts';

const HEARTBEAT_MS = 2 * SECOND_MS;
/** How often shares of connections are renewed, and how often while some change hands. */
const RENEW_MS = SECOND_MS;
const HAND_OVER_MS = 100;

type RouteRow = TenantRow & ServerRow & CredentialRow & DataKeyRow & { last_seq: number };

/** One statement, one snapshot: the change number is exactly what the rest reflects. */
const ROUTE_SQL = `
  SELECT t.org_id, t.schema, t.state, t.generation, t.database_name, t.schema_version, s.server_id, s.host, s.port,
    s.sslmode, s.connection_budget, c.role_name, c.secret, k.version, k.wrapped_key, k.master_key_version,
    coalesce((SELECT last_seq FROM provisioner.tenant_change_counters n WHERE n.schema = t.schema), 0) AS last_seq
  FROM provisioner.tenants t
  JOIN provisioner.database_servers s USING (server_id)
  JOIN provisioner.tenant_credentials c ON c.org_id = t.org_id AND c.schema = t.schema AND c.active
  JOIN provisioner.data_keys k ON k.org_id = c.org_id AND k.version = c.data_key_version
  WHERE t.org_id = $1 AND t.schema = $2`;

export function routeService({ database, changes, owners, master, shareMs }: ProvisionerContext): BoundService {
  return bind(RouteService, {
    async getRoute({ orgId, schema }, ctx) {
      owners.of(schema);
      const [row] = await database.asSystem((tx) => tx.query<RouteRow>(ROUTE_SQL, [orgId, schema]), {
        signal: ctx.signal,
      });
      if (row === undefined) {
        const about = { org_id: orgId, schema };
        throw rpcError(Code.FailedPrecondition, 'TENANT_NOT_PROVISIONED', 'the organization has no database', about);
      }
      return { route: await routeMessage(row, master) };
    },

    async *watchTenantChanges({ schema, afterSeq }, ctx) {
      owners.of(schema);
      const standing = await changes.lastSeq(schema);
      // A reader that is ahead of the log saw one that was since set back: it must hear where this one stands.
      let seq = afterSeq < 0n || Number(afterSeq) > standing ? standing : Number(afterSeq);
      let saidAt = Number.NEGATIVE_INFINITY;
      while (!ctx.signal.aborted && !changes.closed) {
        const news = await changes.after(schema, seq);
        for (const { seq: number, orgId, generation, state } of news) {
          seq = number;
          yield { seq: BigInt(seq), orgId, generation: BigInt(generation), state: stateMessage(state) };
        }
        if (news.length > 0) continue;
        if (performance.now() - saidAt >= HEARTBEAT_MS - 1) {
          saidAt = performance.now();
          yield { seq: BigInt(seq) };
        }
        await changes.grown(schema, seq, Math.max(1, saidAt + HEARTBEAT_MS - performance.now()), ctx.signal);
      }
    },

    async leaseConnections({ node, place, holdings, leaving }, ctx) {
      const options = { signal: ctx.signal };
      if (leaving) {
        await database.asSystem((tx) => releaseConnections(tx, node), options);
        return {};
      }
      const { shares, pending } = await database.asSystem(
        (tx) => leaseConnections(tx, { node, place }, holdings, shareMs),
        options,
      );
      return {
        shares: shares.map((share) => ({ ...share, generation: BigInt(share.generation) })),
        validFor: durationFromMs(shareMs),
        renewIn: durationFromMs(pending ? HAND_OVER_MS : RENEW_MS),
      };
    },
  });
}

async function routeMessage(row: RouteRow, master: MasterKeys): Promise<Route> {
  const route = create(RouteSchema, {
    orgId: row.org_id,
    schema: row.schema,
    state: stateMessage(row.state),
    generation: BigInt(row.generation),
    changeSeq: BigInt(row.last_seq),
    schemaVersion: row.schema_version,
  });
  if (!isReadable(row.state)) return route;
  return Object.assign(route, {
    serverId: row.server_id,
    host: row.host,
    port: row.port,
    sslmode: row.sslmode,
    database: row.database_name,
    user: row.role_name,
    password: openPassword(await unwrapDataKey(master, row), row.schema, row.role_name, row.secret),
    connectionBudget: row.connection_budget,
  });
}
