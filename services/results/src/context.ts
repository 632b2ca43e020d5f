import type { Client } from '@connectrpc/connect';
import type { Lease } from '@mad/auth';
import type { ObjectStore } from '@mad/object-store';
import type { ServiceDeps } from '@mad/process';
import type { JobService, QueueService } from '@mad/proto/catalog';
import type { Tenants } from '@mad/tenancy';
import type { ExportRunner } from './exports/runner.ts';
import type { ObjectSweeper } from './objects/sweep.ts';
import type { JobFeed } from './runs/job-feed.ts';
import type { Waker } from './runs/waker.ts';
import type { JobWatches } from './runs/job-watch.ts';

/** What handlers may reach. Made once, by start.ts. */
export interface Context extends ServiceDeps {
  tenants: Tenants;
  catalog: { jobs: Client<typeof JobService>; queue: Client<typeof QueueService> };
  /** Reads a lease that catalog signed; throws when it is none or has expired. */
  verifyLease: (token: string) => Promise<Lease>;
  feed: JobFeed;
  watches: JobWatches;
  /** Structures of poses, and exports. */
  objects: ObjectStore;
  sweeper: ObjectSweeper;
  waker: Waker;
  exports: ExportRunner;
  /** Hits in a part of an export. */
  exportPartRows: number;
  /** Rows of a job that a step of retention looks at. */
  retentionSliceRows: number;
  /** Results answer later jobs for so many days; undefined is for ever. */
  cacheTtlDays: number | undefined;
}
