import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { FleetStatisticsService, StatementOrder } from '@mad/proto/provisioner';
import { bind, invalid, nextPageToken, pageOf, type BoundService } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import { ownerOfDatabase } from '../domain/names.ts';
import {
  askEach,
  bySize,
  connectionsOf,
  databaseSizes,
  placesOf,
  slowStatements,
  type SizeRow,
} from '../servers/fleet-statistics.ts';
import { tenantHealth, type TenantHealth } from '../servers/tenant-health.ts';
import { stateMessage } from './messages.ts';

const DEFAULT_STATEMENTS = 10;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What the servers say of themselves. Only provisioner may look into them. */
export function fleetStatisticsService(context: ProvisionerContext): BoundService {
  const sizesOf = databaseSizes(context);

  return bind(FleetStatisticsService, {
    async listSlowStatements({ server, order, limit }, ctx) {
      const by = order === StatementOrder.MEAN_TIME ? 'mean_ms' : 'total_ms';
      const places = await placesOf(context, server, ctx.signal);
      const answers = await askEach(context, places, (place) => slowStatements(place, by, limit || DEFAULT_STATEMENTS));
      return {
        servers: answers.map(({ place, found = [], unavailable }) => ({
          server: place.name,
          unavailable,
          statements: found.map(({ text, calls, rows, total_ms: totalMs, mean_ms: meanMs, databases }) => {
            return { text, calls: BigInt(calls), rows: BigInt(rows), totalMs, meanMs, databases };
          }),
        })),
      };
    },

    async listConnections({ server }, ctx) {
      const answers = await askEach(context, await placesOf(context, server, ctx.signal), connectionsOf);
      return {
        servers: answers.map(({ place, found, unavailable }) => ({
          server: place.name,
          budget: place.budget,
          unavailable,
          maxConnections: found?.max_connections,
          reserved: found?.reserved,
          open: found?.groups.reduce((sum, { count }) => sum + count, 0),
          groups: found?.groups.map(
            ({ waiting_for_lock: waitingForLock, longest_seconds: longestSeconds, ...group }) => {
              return { ...group, waitingForLock, longestSeconds };
            },
          ),
        })),
      };
    },

    async listDatabaseSizes(request, ctx) {
      const query = { list: 'sizes', server: request.server };
      const { size, cursor } = pageOf(request, { query, isCursor: isSizeCursor });
      const { at, rows, unavailable } = await sizesOf(request.server, ctx.signal);
      const [bytes, server, database] = (cursor ?? []) as [number, string, string];
      const after = cursor === undefined ? rows : rows.filter((row) => bySize({ bytes, server, database }, row) < 0);
      const page = after.slice(0, size);
      const last = page.at(-1);
      const more = after.length > size && last !== undefined;
      return {
        databases: page.map((row) => ({ ...row, bytes: BigInt(row.bytes), ...ownerOfDatabase(row.database) })),
        nextPageToken: more ? nextPageToken(query, [last.bytes, last.server, last.database]) : '',
        totalBytes: BigInt(rows.reduce((sum, row: SizeRow) => sum + row.bytes, 0)),
        measureTime: timestampFromDate(at),
        unavailableServers: unavailable,
      };
    },

    async listTenantHealth(request, ctx) {
      const { orgId } = request;
      if (orgId !== '' && !UUID.test(orgId)) throw invalid('org_id', 'is not a UUID');
      const query = { list: 'tenant health', orgId: orgId.toLowerCase() };
      const { size, cursor } = pageOf(request, { query, isCursor: isTenantCursor });
      const after = cursor as [string, string] | undefined;
      const rows = await tenantHealth(context, { orgId, after, limit: size + 1 }, ctx.signal);
      const page = rows.slice(0, size);
      const last = page.at(-1);
      return {
        tenants: page.map((row) => ({
          orgId: row.org_id,
          schema: row.schema,
          database: row.database_name,
          server: row.server,
          state: stateMessage(row.state),
          schemaVersion: row.schema_version,
          newest: row.newest,
          sizeBytes: row.bytes === undefined ? undefined : BigInt(row.bytes),
          sessions: row.sessions,
          backupTime: row.backed_up_at === null ? undefined : timestampFromDate(row.backed_up_at),
          verifyTime: row.verified_at === null ? undefined : timestampFromDate(row.verified_at),
          driftTime: row.drift_looked_at === null ? undefined : timestampFromDate(row.drift_looked_at),
          driftCount: row.drift_count ?? undefined,
          problem: row.unavailable || row.last_error || driftProblem(row),
        })),
        nextPageToken: rows.length > size && last !== undefined ? nextPageToken(query, [last.org_id, last.schema]) : '',
      };
    },
  });
}

/** A look that failed says so in its time; what is wrong with the database the next one may tell. */
function driftProblem({ drift_count: count }: TenantHealth): string {
  if (count === null || count === 0) return '';
  return `${count} ${count === 1 ? 'object differs' : 'objects differ'} from what its version makes`;
}

function isTenantCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 2) return false;
  const [orgId, schema] = cursor as unknown[];
  return typeof orgId === 'string' && UUID.test(orgId) && typeof schema === 'string';
}

function isSizeCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 3) return false;
  const [bytes, server, database] = cursor as unknown[];
  return typeof bytes === 'number' && typeof server === 'string' && typeof database === 'string';
}
