import { create, fromJson, toJson, type JsonValue, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampDate, timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { ServiceImpl } from '@connectrpc/connect';
import { CachePredicateSchema, type CacheInvalidationSchema, type CacheService } from '@mad/proto/results';
import type { CachePredicate as PredicateMessage } from '@mad/proto/results';
import { invalid, nextPageToken, orgOf, pageOf, userOf } from '@mad/rpc';
import type { Context } from '../context.ts';
import type { CacheInvalidationRow } from '../db/entities/cache-invalidation.ts';
import { predicateProblem, type CachePredicate } from '../domain/cache-predicate.ts';
import { structBytes, textBytes } from '../domain/content.ts';
import { countInvalidation, invalidate, readInvalidations, undoInvalidation } from '../runs/invalidate.ts';
import { withoutNul } from '../runs/text.ts';
import { isEntryCursor } from './cache-rows.ts';
import { FIXED_BYTES } from './convert.ts';
import { fillPage } from './fill-page.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

type Methods = Pick<
  ServiceImpl<typeof CacheService>,
  'invalidateCacheEntries' | 'undoCacheInvalidation' | 'listCacheInvalidations'
>;

/** Taking results out of the cache by a rule, and giving them back. */
export function cacheInvalidations({ tenants }: Context): Methods {
  return {
    async invalidateCacheEntries(request, ctx) {
      const { orgId, userId } = userOf(ctx);
      const message = request.predicate ?? create(CachePredicateSchema);
      const predicate = predicateOf(message);
      if (request.dryRun) {
        const { entries, jobs, items, exports } = await tenants.read(orgId, (tx) => countInvalidation(tx, predicate));
        const counted = { predicate: message, entries: BigInt(entries), jobs: BigInt(jobs) };
        return { invalidation: counted, items: BigInt(items), exports: BigInt(exports) };
      }
      const reason = withoutNul(request.reason).trim();
      if (reason === '') throw invalid('reason', 'is required: it stays in the audit log');
      const predicateJson = toJson(CachePredicateSchema, message) as object;
      const row = await tenants.transact(orgId, (tx) =>
        invalidate(tx, { id: request.requestId, predicate, predicateJson, reason, userId }),
      );
      return { invalidation: invalidationMessage(row), items: BigInt(row.items), exports: BigInt(row.exports) };
    },

    async undoCacheInvalidation({ invalidationId }, ctx) {
      const { orgId, userId } = userOf(ctx);
      const row = await tenants.transact(orgId, (tx) => undoInvalidation(tx, invalidationId, userId));
      return { invalidation: invalidationMessage(row) };
    },

    async listCacheInvalidations(request, ctx) {
      const orgId = orgOf(ctx);
      const query = ['cache invalidations', orgId];
      const isCursor = (value: JsonValue): boolean => isEntryCursor(value) && UUID.test((value as [string, string])[1]);
      const { size, cursor } = pageOf(request, { query, isCursor });
      const after = cursor as [string, string] | undefined;
      const { rows, more } = await tenants.read(orgId, (tx) =>
        fillPage<ListedInvalidation>({
          size,
          read: (known, limit) => readInvalidations(tx, endOf(known.at(-1)) ?? after, limit),
          bytesOf: invalidationBytes,
        }),
      );
      return {
        invalidations: rows.map(invalidationMessage),
        nextPageToken: more ? nextPageToken(query, endOf(rows.at(-1))!) : '',
      };
    },
  };
}

type ListedInvalidation = Awaited<ReturnType<typeof readInvalidations>>[number];

function endOf(row: ListedInvalidation | undefined): [string, string] | undefined {
  return row && [row.cursor, row.invalidation_id];
}

/** Bytes of an invalidation in an answer; a little more than it takes. */
function invalidationBytes({ predicate, reason }: ListedInvalidation): number {
  return FIXED_BYTES + structBytes(predicate) + textBytes(reason);
}

function predicateOf(message: PredicateMessage): CachePredicate {
  const { task, engine, computedFrom, computedBefore, smiles, jobId, includePinned } = message;
  if (jobId !== '' && !UUID.test(jobId)) throw invalid('predicate.job_id', 'must be a UUID');
  for (const [field, text] of Object.entries({ task, engine, smiles })) {
    if (text.includes('\0')) throw invalid(`predicate.${field}`, 'must not hold NUL characters');
  }
  const predicate = {
    task: task || undefined,
    engine: engine || undefined,
    computedFrom: computedFrom && timestampDate(computedFrom),
    computedBefore: computedBefore && timestampDate(computedBefore),
    smiles: smiles || undefined,
    jobId: jobId || undefined,
    includePinned,
  };
  const problem = predicateProblem(predicate);
  if (problem !== undefined) throw invalid('predicate', problem);
  return predicate;
}

function invalidationMessage(row: CacheInvalidationRow): MessageInitShape<typeof CacheInvalidationSchema> {
  return {
    invalidationId: row.invalidation_id,
    predicate: fromJson(CachePredicateSchema, row.predicate as JsonValue),
    reason: row.reason,
    entries: BigInt(row.entries),
    jobs: BigInt(row.jobs),
    createdBy: row.created_by,
    createTime: timestampFromDate(row.created_at),
    undoTime: row.undone_at === null ? undefined : timestampFromDate(row.undone_at),
    undoneBy: row.undone_by,
    restored: BigInt(row.restored ?? 0),
  };
}
