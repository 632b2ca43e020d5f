import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { FleetStatisticsService, StatementOrder } from '@mad/proto/provisioner';
import { bind, nextPageToken, pageOf, type BoundService } from '@mad/rpc';
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

const DEFAULT_STATEMENTS = 10;

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
  });
}

function isSizeCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 3) return false;
  const [bytes, server, database] = cursor as unknown[];
  return typeof bytes === 'number' && typeof server === 'string' && typeof database === 'string';
}
