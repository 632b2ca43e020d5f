import { create, type JsonObject } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { Tx } from '@mad/postgres';
import { ErasureSchema, ErasureService, type Erasure } from '@mad/proto/provisioner';
import { bind, nextPageToken, notFound, pageOf, type BoundService } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import { ERASURE_COLUMNS, type ErasureRow } from '../db/entities/erasure.ts';
import { recordText } from '../domain/erasure-record.ts';
import { signatureProblems } from '../erasure/signature.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export function erasureService({ database, objects, trustedJwks }: ProvisionerContext): BoundService {
  const read = async (tx: Tx, id: string): Promise<ErasureRow> => {
    const [row] = await tx.query<ErasureRow>(
      `SELECT ${ERASURE_COLUMNS} FROM provisioner.erasure_records WHERE erasure_id = $1 OR org_id = $1`,
      [id],
    );
    if (row === undefined) throw notFound('erasure', id);
    return row;
  };

  return bind(ErasureService, {
    async getErasure({ erasureId }, ctx) {
      const row = await database.asSystem((tx) => read(tx, erasureId), { signal: ctx.signal });
      return { erasure: erasureMessage(row) };
    },

    async listErasures(request, ctx) {
      const query = 'erasures';
      const { size, cursor } = pageOf(request, { query, isCursor: isErasureCursor });
      const [erasedAt, afterId] = (cursor ?? [null, null]) as (string | null)[];
      const rows = await database.asSystem(
        (tx) =>
          tx.query<ErasureRow>(
            `SELECT ${ERASURE_COLUMNS} FROM provisioner.erasure_records
             WHERE $1::timestamptz IS NULL OR (erased_at, erasure_id) < ($1, $2)
             ORDER BY erased_at DESC, erasure_id DESC LIMIT $3`,
            [erasedAt, afterId, size + 1],
          ),
        { signal: ctx.signal },
      );
      const page = rows.slice(0, size);
      const last = page.at(-1);
      const more = rows.length > size && last !== undefined;
      return {
        erasures: page.map(erasureMessage),
        nextPageToken: more ? nextPageToken(query, [last.erased_at.toISOString(), last.erasure_id]) : '',
      };
    },

    async verifyErasure({ erasureId }, ctx) {
      const { row, back } = await database.asSystem(
        async (tx) => {
          const found = await read(tx, erasureId);
          return { row: found, back: await whatIsBack(tx, found.org_id) };
        },
        { signal: ctx.signal },
      );
      const problems = [...signatureProblems(row, trustedJwks), ...back];
      for await (const key of objects.walk(`orgs/${row.org_id}`)) {
        problems.push(`there are objects of it, e.g. ${key}`);
        break;
      }
      return { valid: problems.length === 0, erasure: erasureMessage(row), problems };
    },
  });
}

/** What this service has of an organization that was erased: nothing, unless somebody brought it back. */
async function whatIsBack(tx: Tx, orgId: string): Promise<string[]> {
  const [row] = await tx.query<{ keys: number; backups: number; tenants: number }>(
    `SELECT (SELECT count(*) FROM provisioner.data_keys WHERE org_id = $1)::int AS keys,
       (SELECT count(*) FROM provisioner.backups WHERE org_id = $1)::int AS backups,
       (SELECT count(*) FROM provisioner.tenants WHERE org_id = $1 AND state <> 'erased')::int AS tenants`,
    [orgId],
  );
  return [
    ...(row!.keys > 0 ? [`it has ${row!.keys} data keys again`] : []),
    ...(row!.backups > 0 ? [`it has ${row!.backups} backups again`] : []),
    ...(row!.tenants > 0 ? [`${row!.tenants} of its databases are not marked as erased`] : []),
  ];
}

function erasureMessage(row: ErasureRow): Erasure {
  return create(ErasureSchema, {
    erasureId: row.erasure_id,
    orgId: row.org_id,
    operationId: row.operation_id,
    record: row.record as unknown as JsonObject,
    text: recordText(row.record),
    hash: row.hash,
    keyId: row.key_id,
    publicKey: row.public_key,
    signature: row.signature,
    eraseTime: timestampFromDate(row.erased_at),
  });
}

/** Tokens are not signed: a forged one must not reach the database as a malformed value. */
function isErasureCursor(cursor: unknown): boolean {
  if (!Array.isArray(cursor) || cursor.length !== 2) return false;
  const [erasedAt, erasureId] = cursor as unknown[];
  return (
    typeof erasedAt === 'string' &&
    !Number.isNaN(Date.parse(erasedAt)) &&
    typeof erasureId === 'string' &&
    UUID.test(erasureId)
  );
}
