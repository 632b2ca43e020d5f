import type { EntitySchema, MigrationClass } from '@mad/postgres';
import { AuditEntity } from './entities/audit.ts';
import { CacheInvalidationEntity, CacheInvalidationEntryEntity } from './entities/cache-invalidation.ts';
import { ResultCacheEntity, ResultCacheHistoryEntity } from './entities/cache.ts';
import { ExportEntity, ExportPartEntity } from './entities/export.ts';
import { JobEntity, JobEventEntity, JobInputEntity, JobTaskEntity } from './entities/job.ts';
import { StoredObjectEntity } from './entities/stored-object.ts';
import { RetentionPolicyEntity, RetentionRunEntity } from './entities/retention.ts';
import { FailureCountEntity, ScoreHistogramEntity } from './entities/statistics.ts';
import { DockingResultEntity, StagedResultEntity, TaskExecutionEntity, TaskResultEntity } from './entities/work.ts';
import { Jobs } from './migrations/2026_11_21_0900_jobs.ts';
import { Work } from './migrations/2026_11_21_0901_work.ts';
import { PosesAndEvents } from './migrations/2026_11_21_0902_poses_and_events.ts';
import { AuditLog } from './migrations/2026_11_21_0903_audit_log.ts';
import { ResultBatches } from './migrations/2026_11_25_0950_result_batches.ts';
import { ScoreStatistics } from './migrations/2026_11_25_0951_score_statistics.ts';
import { CacheSources } from './migrations/2026_11_25_1040_cache_sources.ts';
import { CacheInvalidations } from './migrations/2026_11_25_1041_cache_invalidations.ts';
import { PoseObjects } from './migrations/2026_11_25_1100_pose_objects.ts';
import { Exports } from './migrations/2026_11_25_1101_exports.ts';
import { Retention } from './migrations/2026_11_25_1110_retention.ts';
import { Replicas } from './migrations/2026_11_25_1111_replicas.ts';
import { CoreTime } from './migrations/2026_11_25_1112_core_time.ts';
import { RetentionSlices } from './migrations/2026_11_26_1410_retention_slices.ts';
import { InvalidationCounts } from './migrations/2026_11_26_1420_invalidation_counts.ts';

/** The tenant schema, and the Postgres schema inside every organization's database. */
export const SCHEMA = 'results';

/** Oldest first. */
export const resultsMigrations: readonly MigrationClass[] = [
  Jobs,
  Work,
  PosesAndEvents,
  AuditLog,
  ResultBatches,
  ScoreStatistics,
  CacheSources,
  CacheInvalidations,
  PoseObjects,
  Exports,
  Retention,
  Replicas,
  CoreTime,
  RetentionSlices,
  InvalidationCounts,
];

/**
 * The oldest version this code works with: while a release goes through the fleet, tenants are at it or at a later one.
 * What comes after it only adds what is not needed before a tenant has it. To be raised in the release after the one whose migration
 * the code needs.
 */
export const SERVED_FROM: MigrationClass = CoreTime;

/** Versions whose tenants are refused until they are migrated. */
export const outdatedVersions: readonly string[] = resultsMigrations
  .slice(0, resultsMigrations.indexOf(SERVED_FROM))
  .map(({ migrationName }) => migrationName);

export const resultsEntities: readonly EntitySchema[] = [
  JobEntity,
  JobTaskEntity,
  JobInputEntity,
  JobEventEntity,
  TaskExecutionEntity,
  TaskResultEntity,
  StagedResultEntity,
  DockingResultEntity,
  StoredObjectEntity,
  ExportEntity,
  ExportPartEntity,
  ResultCacheEntity,
  ResultCacheHistoryEntity,
  CacheInvalidationEntity,
  CacheInvalidationEntryEntity,
  ScoreHistogramEntity,
  FailureCountEntity,
  AuditEntity,
  RetentionPolicyEntity,
  RetentionRunEntity,
];
