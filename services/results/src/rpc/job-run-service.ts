import type { ServiceImpl } from '@connectrpc/connect';
import type { JsonValue } from '@bufbuild/protobuf';
import type { JobRunService } from '@mad/proto/results';
import { invalid, nextPageToken, notFound, orgOf, pageOf } from '@mad/rpc';
import type { Context } from '../context.ts';
import { readJob, requireJob, type JobImage, type JobTask } from '../runs/job-image.ts';
import { eventMessage, ITEM_COLUMNS, jobRunMessage, statusOf, workItemMessage, type ItemRow } from './convert.ts';
import { readHits, readPoses, sourceOf, type PoseCursor } from './result-rows.ts';
import { readEvents, watchJob } from './watch-job.ts';

const isInt32 = (value: unknown): boolean => Number.isInteger(value) && Math.abs(value as number) < 2 ** 31;

/** Says whether a cursor has this shape, one letter a part: `n` any number, `i` what Postgres's integer holds. */
const shapeOf =
  (shape: string) =>
  (cursor: JsonValue): boolean =>
    Array.isArray(cursor) &&
    cursor.length === shape.length &&
    cursor.every((part, index) => (shape[index] === 'i' ? isInt32(part) : typeof part === 'number'));

/** What a job computed, read from its organization's own database. */
export function jobRunService(context: Context): ServiceImpl<typeof JobRunService> {
  const { tenants } = context;

  return {
    async getJobRun({ jobId }, ctx) {
      const job = await tenants.read(orgOf(ctx), (tx) => requireJob(tx, jobId));
      return { jobRun: jobRunMessage(job) };
    },

    async describeJobRun({ orgId, jobId }, ctx) {
      // Catalog waits for a short time only: what it no longer waits for is given up here too.
      const job = await tenants.read(orgId, (tx) => requireJob(tx, jobId), { signal: ctx.signal });
      return { jobRun: jobRunMessage(job) };
    },

    async listHits(request, ctx) {
      const orgId = orgOf(ctx);
      const query = ['hits', orgId, request.jobId, request.taskId];
      const { size, cursor } = pageOf(request, { query, isCursor: shapeOf('nii') });
      const after = cursor as [score: number, itemNo: number, rank: number] | undefined;
      return tenants.read(orgId, async (tx) => {
        const task = scoringTask(await requireJob(tx, request.jobId), request.taskId);
        const rows = await readHits(tx, request.jobId, task, { after, size: size + 1 });
        const shown = rows.slice(0, size);
        const first = (after?.[2] ?? 0) + 1;
        const last = shown.at(-1);
        return {
          hits: shown.map((row, index) => workItemMessage(row, task.plan.scoreUnits, first + index)),
          nextPageToken:
            rows.length > size ? nextPageToken(query, [last!.score, last!.item_no, first + shown.length - 1]) : '',
        };
      });
    },

    async listWorkItems(request, ctx) {
      const orgId = orgOf(ctx);
      const query = ['items', orgId, request.jobId, request.taskId, request.status];
      const { size, cursor } = pageOf(request, { query, isCursor: shapeOf('ii') });
      const [taskIndex, itemNo] = (cursor as [number, number] | undefined) ?? [0, 0];
      return tenants.read(orgId, async (tx) => {
        const job = await requireJob(tx, request.jobId);
        if (request.taskId !== '') taskNamed(job, request.taskId);
        const found: { row: ItemRow; index: number; units: string }[] = [];
        // Task by task: within one, the primary key gives the order.
        for (const [index, { taskId, plan }] of job.tasks.entries()) {
          if (index < taskIndex || found.length > size) continue;
          if (request.taskId !== '' && request.taskId !== taskId) continue;
          const rows = await tx.query<ItemRow>(
            `SELECT ${ITEM_COLUMNS} FROM task_results
              WHERE job_id = $1 AND task_id = $2 AND item_no > $3 AND ($4::work_status IS NULL OR status = $4)
              ORDER BY item_no LIMIT $5`,
            [
              request.jobId,
              taskId,
              index === taskIndex ? itemNo : 0,
              statusOf(request.status) ?? null,
              size + 1 - found.length,
            ],
          );
          found.push(...rows.map((row) => ({ row, index, units: plan.scoreUnits })));
        }
        const shown = found.slice(0, size);
        const last = shown.at(-1);
        return {
          items: shown.map(({ row, units }) => workItemMessage(row, units)),
          nextPageToken: found.length > size ? nextPageToken(query, [last!.index, last!.row.item_no]) : '',
        };
      });
    },

    async listPoses(request, ctx) {
      const orgId = orgOf(ctx);
      const query = ['poses', orgId, request.jobId, request.taskId, request.itemNo];
      const { size, cursor } = pageOf(request, { query, isCursor: shapeOf('nii') });
      return tenants.read(orgId, async (tx) => {
        const task = scoringTask(await requireJob(tx, request.jobId), request.taskId);
        const source = await sourceOf(tx, request.jobId, task.taskId, request.itemNo);
        const rows = await readPoses(tx, source, (cursor as PoseCursor | undefined) ?? null, size + 1);
        const shown = rows.slice(0, size);
        const last = shown.at(-1);
        return {
          poses: shown.map((row) => ({
            replicate: row.replicate,
            poseRank: row.pose_rank,
            score: row.score,
            rawScore: row.raw_score,
            rmsdLb: row.rmsd_lb,
            rmsdUb: row.rmsd_ub,
          })),
          nextPageToken:
            rows.length > size ? nextPageToken(query, [last!.score, last!.replicate, last!.pose_rank]) : '',
        };
      });
    },

    async listJobEvents(request, ctx) {
      const orgId = orgOf(ctx);
      const query = ['events', orgId, request.jobId, String(request.afterSeq)];
      const { size, cursor } = pageOf(request, { query, isCursor: isInt32 });
      return tenants.read(orgId, async (tx) => {
        if ((await readJob(tx, request.jobId)) === undefined) throw notFound('job', request.jobId);
        const rows = await readEvents(
          tx,
          request.jobId,
          (cursor as number | undefined) ?? Number(request.afterSeq),
          size + 1,
        );
        const shown = rows.slice(0, size);
        return {
          events: shown.map(eventMessage),
          nextPageToken: rows.length > size ? nextPageToken(query, shown.at(-1)!.seq_no) : '',
        };
      });
    },

    watchJob: (request, ctx) => watchJob(context, request, ctx),
  };
}

function taskNamed(job: JobImage, taskId: string): JobTask {
  const task = job.tasks.find((candidate) => candidate.taskId === taskId);
  if (task === undefined) throw invalid('task_id', `the job has no task ${taskId}`);
  return task;
}

/** The task asked for, or the job's last one that gives scores. */
function scoringTask(job: JobImage, taskId: string): JobTask {
  if (taskId !== '') return taskNamed(job, taskId);
  const task = job.tasks.findLast(({ plan }) => plan.scoreUnits !== '');
  if (task === undefined) throw invalid('task_id', 'is required: no task of this job gives scores');
  return task;
}
