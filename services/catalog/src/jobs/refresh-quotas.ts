import { reasonOf } from '@mad/rpc';
import type { CatalogContext } from '../context.ts';
import { admitJobs } from './admit.ts';
import { lockOrgQueue, setMaxRunning } from './org-queue.ts';

/** What following quotas works with. */
export type QuotaContext = Pick<CatalogContext, 'database' | 'boss' | 'tasks'> & {
  organizations: Pick<CatalogContext['organizations'], 'require'>;
};

interface Standing {
  org_id: string;
  max_running: number;
  max_concurrent_jobs: number;
  waiting: boolean;
}

/** Why an organization may run nothing now; anything else that goes wrong says nothing about it. */
const CLOSED = new Set(['TENANT_SUSPENDED', 'ORGANIZATION_NOT_FOUND']);

/** What an organization may use now; undefined when identity does not say. */
async function limitsOf(context: QuotaContext, orgId: string) {
  try {
    const { quotas } = await context.organizations.require(orgId, 'reading');
    return { maxRunning: quotas.maxRunningTasks, maxConcurrentJobs: quotas.maxConcurrentJobs };
  } catch (error) {
    return CLOSED.has(reasonOf(error) ?? '') ? { maxRunning: 0, maxConcurrentJobs: undefined } : undefined;
  }
}

/**
 * Follows changed quotas and suspensions of organizations with open jobs, and gives free places to jobs that wait: what
 * an ending job does at once, again, in case the quota grew. Returns how many organizations changed.
 */
export async function refreshQuotas(context: QuotaContext): Promise<number> {
  const { database, boss } = context;
  const busy = await database.asSystem((tx) =>
    tx.query<Standing>(
      `SELECT q.org_id, q.max_running, q.max_concurrent_jobs, bool_or(j.admitted_at IS NULL) AS waiting
       FROM catalog.org_queue q JOIN catalog.jobs_meta j ON j.org_id = q.org_id
       WHERE j.status IN ('pending', 'queued', 'running') GROUP BY q.org_id`,
    ),
  );
  let changed = 0;
  for (const { org_id: orgId, waiting, ...known } of busy) {
    const limits = await limitsOf(context, orgId);
    const maxRunning = limits?.maxRunning ?? known.max_running;
    const maxConcurrentJobs = limits?.maxConcurrentJobs ?? known.max_concurrent_jobs;
    const same = maxRunning === known.max_running && maxConcurrentJobs === known.max_concurrent_jobs;
    if (same && !waiting) continue;
    await database.asSystem(async (tx) => {
      await lockOrgQueue(tx, orgId);
      if (!same) {
        await setMaxRunning(tx, orgId, maxRunning);
        await tx.execute('UPDATE catalog.org_queue SET max_concurrent_jobs = $2 WHERE org_id = $1', [
          orgId,
          maxConcurrentJobs,
        ]);
      }
      await admitJobs(tx, boss, orgId);
    });
    if (!same) changed += 1;
  }
  if (changed > 0) context.tasks.raise();
  return changed;
}
