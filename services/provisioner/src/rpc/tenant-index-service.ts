import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { Code } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { TenantIndexSchema, TenantIndexService, type TenantIndex } from '@mad/proto/provisioner';
import { actorOf, bind, callerOf, nextPageToken, notFound, pageOf, rpcError, type BoundService } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import type { TenantIndexRow } from '../db/entities/tenant-index.ts';
import { beginWithIdle } from '../operations/begin-idle.ts';
import { startOperation } from './operation.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const COLUMNS = 'org_id, schema, name, table_name, columns, method, state, definition, created_at';

export function tenantIndexService(context: ProvisionerContext): BoundService {
  const { database, owners, leaseMs } = context;

  return bind(TenantIndexService, {
    async createTenantIndex({ orgId, schema, name, table, columns, method }, ctx) {
      owners.of(schema);
      const key = { orgId: orgId.toLowerCase(), schema };
      const { row, held } = await database.asSystem(async (tx) => {
        const request = { leaseMs, actor: actorOf(callerOf(ctx)), params: { name, table, columns } };
        const begun = await beginWithIdle(tx, key, 'build_index', request);
        // One whose build was given up and that nobody has dropped yet may be asked for anew.
        const [noted] = await tx.query<TenantIndexRow>(
          `INSERT INTO provisioner.tenant_indexes AS i (org_id, schema, name, table_name, columns, method)
           VALUES ($1, $2, $3, $4, $5, $6)
           ON CONFLICT (org_id, schema, name) DO UPDATE
             SET table_name = excluded.table_name, columns = excluded.columns, method = excluded.method
             WHERE i.state = 'building' RETURNING ${COLUMNS}`,
          [key.orgId, schema, name, table, columns, method || 'btree'],
        );
        if (noted === undefined) {
          throw rpcError(Code.AlreadyExists, 'ALREADY_EXISTS', 'name: is already taken', { field: 'name' });
        }
        return { row: noted, held: begun };
      });
      return { index: message(row), operation: await startOperation(context, held) };
    },

    async listTenantIndexes(request, ctx) {
      const orgId = request.orgId.toLowerCase();
      const query = { list: 'tenant-indexes', orgId };
      const { size, cursor } = pageOf(request, { query, isCursor: isIndexCursor });
      const [afterOrg, afterSchema, afterName] = (cursor ?? [null, null, null]) as (string | null)[];
      const rows = await database.asSystem(
        (tx) =>
          tx.query<TenantIndexRow>(
            `SELECT ${COLUMNS} FROM provisioner.tenant_indexes
             WHERE ($1::uuid IS NULL OR org_id = $1) AND ($2::uuid IS NULL OR (org_id, schema, name) > ($2, $3, $4))
             ORDER BY org_id, schema, name LIMIT $5`,
            [orgId || null, afterOrg, afterSchema, afterName, size + 1],
          ),
        { signal: ctx.signal },
      );
      const page = rows.slice(0, size);
      const last = page.at(-1);
      const more = rows.length > size && last !== undefined;
      return {
        indexes: page.map(message),
        nextPageToken: more ? nextPageToken(query, [last.org_id, last.schema, last.name]) : '',
      };
    },

    async deleteTenantIndex({ orgId, schema, name }, ctx) {
      owners.of(schema);
      const key = { orgId: orgId.toLowerCase(), schema };
      const held = await database.asSystem(async (tx) => {
        const begun = await beginWithIdle(tx, key, 'drop_index', {
          leaseMs,
          actor: actorOf(callerOf(ctx)),
          params: { name },
        });
        await markDropping(tx, key.orgId, schema, name);
        return begun;
      });
      return { operation: await startOperation(context, held) };
    },
  });
}

async function markDropping(tx: Tx, orgId: string, schema: string, name: string): Promise<void> {
  const marked = await tx.execute(
    `UPDATE provisioner.tenant_indexes SET state = 'dropping' WHERE org_id = $1 AND schema = $2 AND name = $3`,
    [orgId, schema, name],
  );
  if (marked === 0) throw notFound('index', name);
}

function message(row: TenantIndexRow): TenantIndex {
  return create(TenantIndexSchema, {
    orgId: row.org_id,
    schema: row.schema,
    name: row.name,
    table: row.table_name,
    columns: row.columns,
    method: row.method,
    definition: row.definition,
    createTime: timestampFromDate(row.created_at),
  });
}

/** Tokens are not signed: a forged one must not reach the database as a malformed value. */
function isIndexCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 3) return false;
  const [orgId, schema, name] = cursor as unknown[];
  return typeof orgId === 'string' && UUID.test(orgId) && typeof schema === 'string' && typeof name === 'string';
}
