import type { ServiceImpl } from '@connectrpc/connect';
import { WorkStatus, type JobRunService } from '@mad/proto/results';
import { invalid, nextPageToken, orgOf, pageOf } from '@mad/rpc';
import type { Context } from '../context.ts';
import type { JobEventRow } from '../db/entities/job.ts';
import { readEvents } from '../runs/job-events.ts';
import { requireJob } from '../runs/job-image.ts';
import {
  dropTime,
  eventBytes,
  eventMessage,
  itemBytes,
  jobRunMessage,
  poseMessage,
  statusOf,
  workItemMessage,
} from './convert.ts';
import { isInt32, shapeOf } from './cursor.ts';
import { fillPage } from './fill-page.ts';
import { requireFilter, requireKnownRanks } from './filter.ts';
import { invalidatedAmong } from './invalidated.ts';
import { readHits, type HitCursor } from './hit-rows.ts';
import { scoringTask, taskNamed } from './job-tasks.ts';
import {
  readBestPoses,
  readItemsOfTasks,
  readPoses,
  sourceOf,
  type ListedItem,
  type PoseCursor,
} from './result-rows.ts';
import { watchJob } from './watch-job.ts';

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
      const { jobId, taskId, bestPerMolecule, includeBestPose } = request;
      const filter = requireFilter(request.filter);
      const query = ['hits', orgId, jobId, taskId, request.filter, bestPerMolecule];
      const { size, cursor } = pageOf(request, { query, isCursor: shapeOf('nii') });
      return tenants.read(orgId, async (tx) => {
        const job = await requireJob(tx, jobId);
        const task = scoringTask(job, taskId);
        requireKnownRanks(filter, task.plan.lowerIsBetter);
        const after = cursor as HitCursor | undefined;
        const { rows, next } = await readHits(tx, jobId, task, { filter, bestPerMolecule, after, size });
        const itemNos = rows.map((row) => row.item_no);
        const poses = includeBestPose ? await readBestPoses(tx, jobId, task.taskId, itemNos) : undefined;
        const invalidated = await invalidatedAmong(
          tx,
          rows.map((row) => ({ row, jobId, task: task.plan.task })),
        );
        return {
          hits: rows.map((row) =>
            workItemMessage(row, {
              scoreUnits: task.plan.scoreUnits,
              invalidated: invalidated.has(row),
              rank: row.rank,
              bestPose: poses?.get(row.item_no),
            }),
          ),
          nextPageToken: next === undefined ? '' : nextPageToken(query, next),
          resultsDropTime: dropTime(job),
        };
      });
    },

    async listWorkItems(request, ctx) {
      const orgId = orgOf(ctx);
      const { errorClass } = request;
      if (errorClass !== '' && ![WorkStatus.UNSPECIFIED, WorkStatus.FAILED].includes(request.status)) {
        throw invalid('error_class', 'only failed items have one');
      }
      const query = ['items', orgId, request.jobId, request.taskId, request.status, errorClass];
      const { size, cursor } = pageOf(request, { query, isCursor: shapeOf('ii') });
      const [taskIndex, itemNo] = (cursor as [number, number] | undefined) ?? [0, 0];
      return tenants.read(orgId, async (tx) => {
        const job = await requireJob(tx, request.jobId);
        if (request.taskId !== '') taskNamed(job, request.taskId);
        const which = { taskId: request.taskId, status: statusOf(request.status), errorClass };
        const { rows: shown, more } = await fillPage<ListedItem>({
          size,
          read: (known, limit) => {
            const last = known.at(-1);
            const after = { index: last?.index ?? taskIndex, itemNo: last?.row.item_no ?? itemNo };
            return readItemsOfTasks(tx, job, which, after, limit);
          },
          bytesOf: ({ row }) => itemBytes(row),
        });
        const last = shown.at(-1);
        const invalidated = await invalidatedAmong(tx, shown);
        return {
          items: shown.map(({ row, scoreUnits }) =>
            workItemMessage(row, { scoreUnits, invalidated: invalidated.has(row) }),
          ),
          nextPageToken: more ? nextPageToken(query, [last!.index, last!.row.item_no]) : '',
          resultsDropTime: dropTime(job),
        };
      });
    },

    async listPoses(request, ctx) {
      const orgId = orgOf(ctx);
      const query = ['poses', orgId, request.jobId, request.taskId, request.itemNo];
      const { size, cursor } = pageOf(request, { query, isCursor: shapeOf('nii') });
      return tenants.read(orgId, async (tx) => {
        const job = await requireJob(tx, request.jobId);
        const task = scoringTask(job, request.taskId);
        const source = await sourceOf(tx, job, task.taskId, request.itemNo);
        const rows = await readPoses(tx, source, (cursor as PoseCursor | undefined) ?? null, size + 1);
        const shown = rows.slice(0, size);
        const last = shown.at(-1);
        return {
          poses: shown.map(poseMessage),
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
        const job = await requireJob(tx, request.jobId);
        const after = (cursor as number | undefined) ?? Number(request.afterSeq);
        const { rows, more } = await fillPage<JobEventRow>({
          size,
          read: (known, limit) => readEvents(tx, job.row, known.at(-1)?.seq_no ?? after, limit),
          bytesOf: eventBytes,
        });
        return {
          events: rows.map(eventMessage),
          nextPageToken: more ? nextPageToken(query, rows.at(-1)!.seq_no) : '',
          resultsDropTime: dropTime(job),
        };
      });
    },

    watchJob: (request, ctx) => watchJob(context, request, ctx),
  };
}
