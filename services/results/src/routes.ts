import {
  CacheService,
  ExecutionService,
  ExportService,
  JobRunService,
  JobStatisticsService,
  PoseService,
  PrewarmService,
  RetentionService,
  StorageService,
} from '@mad/proto/results';
import { bind, type BoundService } from '@mad/rpc';
import { tenantSchemaService } from '@mad/tenancy';
import type { Context } from './context.ts';
import { resultsMigrations, SCHEMA } from './db/schema.ts';
import { cacheService } from './rpc/cache-service.ts';
import { executionService } from './rpc/execution-service.ts';
import { exportService } from './rpc/export-service.ts';
import { jobRunService } from './rpc/job-run-service.ts';
import { jobStatisticsService } from './rpc/job-statistics-service.ts';
import { poseService } from './rpc/pose-service.ts';
import { prewarmService } from './rpc/prewarm-service.ts';
import { retentionService } from './rpc/retention-service.ts';
import { storageService } from './rpc/storage-service.ts';

/** Everything results serves. */
export function routes(context: Context): BoundService[] {
  return [
    bind(CacheService, cacheService(context)),
    bind(ExecutionService, executionService(context)),
    bind(ExportService, exportService(context)),
    bind(JobRunService, jobRunService(context)),
    bind(JobStatisticsService, jobStatisticsService(context)),
    bind(PoseService, poseService(context)),
    bind(PrewarmService, prewarmService(context)),
    bind(RetentionService, retentionService(context)),
    bind(StorageService, storageService(context)),
    tenantSchemaService({ schema: SCHEMA, migrations: resultsMigrations, logger: context.logger }),
  ];
}
