import type { MessageInitShape } from '@bufbuild/protobuf';
import { createClient } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import { RetentionService, type RetentionRuleSchema } from '@mad/proto/results';
import { bearer, docking, rows, similarity, type JobOptions, type Organization, type World } from './world.ts';

export type Rule = MessageInitShape<typeof RetentionRuleSchema>;

/** Retention as its organization's administrator sees it. */
export function retentionOf(world: World, org: Organization) {
  const client = () => createClient(RetentionService, world.transport);
  const { orgId } = org;
  const as = () => bearer(org.token);
  return {
    get: async () => (await client().getRetentionPolicy({ orgId }, as())).policy!,
    set: async (rules: Rule[], requestId = uuidv7()) =>
      (await client().setRetentionPolicy({ orgId, requestId, rules }, as())).policy!,
    preview: async (rules: Rule[] = []) => (await client().previewRetention({ orgId, rules }, as())).wouldDelete!,
    async apply(requestId = uuidv7()) {
      for (;;) {
        const { run } = await client().applyRetention({ orgId, requestId }, as());
        if (run!.endTime !== undefined) return run!;
      }
    },
    runs: async (page: { pageSize?: number; pageToken?: string } = {}) =>
      client().listRetentionRuns({ orgId, ...page }, as()),
  };
}

export const pose = { replicate: 1, poseRank: 1, score: -7, rawScore: -7, rmsdLb: 0, rmsdUb: 0 };

/** A UUIDv7 made at this moment. */
let made = 0;
export function idAt(time: number): string {
  const hex = Math.floor(time).toString(16).padStart(12, '0');
  made += 1;
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-${made.toString(16).padStart(12, '0')}`;
}

/** The middle of a month, so many from now. */
export const midMonth = (monthsFromNow: number): number => {
  const now = new Date();
  return Date.UTC(now.getUTCFullYear(), now.getUTCMonth() + monthsFromNow, 15);
};

/** Runs a job of a task that docks (or compares) to its end; `endedDaysAgo` sets its clock back. */
export async function finished(
  world: World,
  org: Organization,
  options: JobOptions & { endedDaysAgo?: number; scoreOf?: (smiles: string) => number | undefined } = {},
): Promise<{ jobId: string; cached: number }> {
  const { endedDaysAgo = 0, scoreOf = (smiles) => -smiles.length, ...job } = options;
  const made = await world.materialize(org, { plans: [docking()], ...job });
  for (const { taskExecutionId } of made.runnable) {
    await world.run(org, taskExecutionId, (smiles) => {
      const score = scoreOf(smiles);
      if (score === undefined) return { errorClass: 'IMPLAUSIBLE', errorMessage: 'nonsense' };
      return score < 0
        ? {
            score,
            poses: [
              { ...pose, score },
              { ...pose, score, poseRank: 2 },
            ],
          }
        : { score };
    });
  }
  await endedAgo(org, made.jobId, endedDaysAgo);
  return { jobId: made.jobId, cached: Number(made.progress!.counters!.cached) };
}

export const endedAgo = (org: Organization, jobId: string, days: number): Promise<unknown> =>
  rows(org, `UPDATE jobs SET ended_at = now() - make_interval(days => $2) WHERE job_id = $1 AND ended_at IS NOT NULL`, [
    jobId,
    days,
  ]);

/** What must hold of a tenant after anything: sentences that are not true. */
export async function unsound(org: Organization): Promise<string[]> {
  const [found] = await rows<Record<string, number>>(
    org,
    `SELECT
      (SELECT count(*) FROM task_results r WHERE r.status = 'cached' AND NOT EXISTS (SELECT FROM task_results s
        WHERE s.job_id = r.reused_from_job_id AND s.task_id = r.reused_from_task_id AND s.item_no = r.reused_from_item_no))::int AS dangling,
      (SELECT count(*) FROM docking_results d JOIN jobs j USING (job_id) WHERE NOT j.sweep_due AND j.drop_progress IS NULL AND NOT EXISTS (SELECT FROM task_results t
        WHERE t.job_id = d.job_id AND t.task_id = d.task_id AND t.item_no = d.item_no))::int AS "orphaned poses",
      (SELECT count(*) FROM result_cache c WHERE (c.artifact_map ->> 'poses')::int > (SELECT count(*) FROM docking_results d
        WHERE d.job_id = c.canonical_job_id AND d.task_id = c.canonical_task_id AND d.item_no = c.canonical_item_no))::int AS "entries without poses",
      (SELECT count(*) FROM jobs j WHERE results_dropped_at IS NULL AND requested <>
        (SELECT count(*) FROM task_results t WHERE t.job_id = j.job_id))::int AS "lost items",
      (SELECT count(*) FROM jobs j WHERE results_dropped_at IS NULL AND event_seq <>
        (SELECT count(*) FROM job_events e WHERE e.job_id = j.job_id))::int AS "lost events",
      (SELECT count(*) FROM jobs WHERE requested <> cached + scored + failed + skipped + cancelled + pending)::int AS miscounted,
      (SELECT count(*) FROM jobs j JOIN job_events e USING (job_id) WHERE results_dropped_at IS NOT NULL AND NOT sweep_due AND drop_progress IS NULL)::int AS "events left"`,
  );
  return Object.entries(found!)
    .filter(([, count]) => count > 0)
    .map(([what, count]) => `${count} ${what}`);
}

export { docking, similarity };
