import type { Client } from '@connectrpc/connect';
import type { Lease } from '@mad/auth';
import type { Chemistry } from '@mad/chemistry';
import type { ObjectStore } from '@mad/object-store';
import type { Boss, Database } from '@mad/postgres';
import type { ServiceDeps } from '@mad/process';
import type { OrganizationService } from '@mad/proto/identity';
import type { TenantService } from '@mad/proto/provisioner';
import type { CacheService, ExecutionService, JobRunService, StorageService } from '@mad/proto/results';
import type { CatalogQueueConfig } from './config.ts';
import type { SchemaValidator } from './domain/pipeline-spec.ts';
import type { TaskSignal } from './jobs/task-signal.ts';
import type { Organizations } from './organizations.ts';
import type { PipelineVersions } from './pipeline-versions.ts';
import type { TaskDefinitions } from './task-definitions.ts';

/** What handlers may reach. */
export interface CatalogContext extends ServiceDeps {
  database: Database;
  boss: Boss;
  chemistry: Chemistry;
  /** The version of RDKit that makes canonical forms here, e.g. `2026.09.1`. */
  rdkitVersion: string;
  objects: ObjectStore;
  /** Status and quotas, from identity. */
  organizations: Organizations;
  taskDefinitions: TaskDefinitions;
  pipelineVersions: PipelineVersions;
  schemaValidator: SchemaValidator;
  /** Proves a worker's right to a task until the given time. */
  signLease: (lease: Lease, expiresAt: Date) => Promise<string>;
  verifyLease: (token: string) => Promise<Lease>;
  /** Identity itself, for what must not be 30 s old: members, tokens, new quotas. */
  identity: Client<typeof OrganizationService>;
  /** Results: where jobs are materialized and run. */
  executions: Client<typeof ExecutionService>;
  /** Results: what a job is in its tenant. */
  jobRuns: Client<typeof JobRunService>;
  /** Results: what it kept that would answer a job. */
  cache: Client<typeof CacheService>;
  /** Results: what it keeps in the object store. */
  storage: Client<typeof StorageService>;
  /** The provisioner: makes an organization's databases with its first job where they are not made with itself. */
  tenants: Client<typeof TenantService>;
  provisioning: 'eager' | 'on_first_write';
  /** How long a lease holds, and how often the queue is looked after. */
  queue: CatalogQueueConfig;
  /** Wakes the workers that wait here for tasks. */
  tasks: TaskSignal;
}
