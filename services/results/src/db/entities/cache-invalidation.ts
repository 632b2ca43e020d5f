import { EntitySchema } from '@mad/postgres';

/** A row of results.cache_invalidations. */
export interface CacheInvalidationRow {
  invalidation_id: string;
  /** mad.results.v1.CachePredicate as JSON. */
  predicate: Record<string, unknown>;
  reason: string;
  entries: number;
  jobs: number;
  created_by: string;
  created_at: Date;
  undone_by: string;
  undone_at: Date | null;
  restored: number | null;
  items: number;
  exports: number;
}

export const CacheInvalidationEntity = new EntitySchema<CacheInvalidationRow>({
  name: 'cache_invalidations',
  schema: 'results',
  columns: {
    invalidation_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'cache_invalidations_pkey' },
    predicate: { type: 'jsonb' },
    reason: { type: 'text', comment: 'Confidential: why, in the words of who did it' },
    entries: { type: 'integer' },
    jobs: { type: 'integer' },
    created_by: { type: 'text', comment: 'PII: the user who did it' },
    created_at: { type: 'timestamptz', default: () => 'now()' },
    undone_by: { type: 'text', default: '', comment: 'PII: the user who undid it' },
    undone_at: { type: 'timestamptz', nullable: true },
    restored: { type: 'integer', nullable: true },
    items: {
      type: 'integer',
      default: 0,
      comment: 'Internal: items in other jobs that its results had answered; 0 where it was not noted yet',
    },
    exports: {
      type: 'integer',
      default: 0,
      comment: 'Internal: exports of the tasks its results were of or had answered; 0 where it was not noted yet',
    },
  },
});

/** A row of results.cache_invalidation_entries: one result that an invalidation took out. */
export interface CacheInvalidationEntryRow {
  invalidation_id: string;
  cache_key: string;
  version: number;
  status: 'valid' | 'pinned';
}

const entryKey = { primary: true, primaryKeyConstraintName: 'cache_invalidation_entries_pkey' } as const;

export const CacheInvalidationEntryEntity = new EntitySchema<CacheInvalidationEntryRow>({
  name: 'cache_invalidation_entries',
  schema: 'results',
  columns: {
    invalidation_id: { type: 'uuid', ...entryKey },
    cache_key: { type: 'text', ...entryKey },
    version: { type: 'integer' },
    status: { type: 'text' },
  },
});
