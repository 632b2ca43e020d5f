import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import {
  CancelJobResponseSchema,
  CreateJobResponseSchema,
  type JobInputPropertiesSchema,
  JobService,
  JobState as JobStateMessage,
} from '@mad/proto/catalog';
import { notFound, pageOf, requireName, requireStorable, userOf } from '@mad/rpc';
import { audit, auditEvent } from '../audit.ts';
import type { CatalogContext } from '../context.ts';
import { cancel, requestCancel } from '../jobs/cancel.ts';
import { createJob, readJob, resolveJob } from '../jobs/create.ts';
import { tryInline } from '../jobs/inline.ts';
import { requireInput } from '../jobs/job-input.ts';
import { materialize } from '../jobs/materialize.ts';
import { waitingOf } from '../jobs/waiting.ts';
import { changeOrganization, readOrganization } from '../organization-scope.ts';
import { JOB_COLUMNS, jobMessage, jobStateOf, type JobView } from './job.ts';
import { isUuidCursor, pageOfRows } from './page.ts';
import { tenantJob } from './tenant-job.ts';

/** Items in one message of an input stream. */
const INPUT_BATCH = 1_000;

interface InputRow {
  item_no: number;
  molecule_id: string;
  canonical_smiles: string;
  name: string;
  properties: Record<string, number>;
}

/** What results keeps of a molecule to filter hits by; undefined where one is missing. */
function inputProperties({ properties }: InputRow): MessageInitShape<typeof JobInputPropertiesSchema> | undefined {
  const { molecular_weight: molecularWeight, logp, tpsa, hbd, hba, rotatable_bonds: rotatableBonds } = properties;
  const kept = { molecularWeight, logp, tpsa, hbd, hba, rotatableBonds };
  return Object.values(kept).every((value) => typeof value === 'number') ? kept : undefined;
}

/** Jobs: asked for, watched over, cancelled. */
export function jobService(context: CatalogContext): ServiceImpl<typeof JobService> {
  const { boss, database } = context;
  const current = (orgId: string, jobId: string) =>
    database.inOrg(orgId, (tx) => readJob(tx, orgId, jobId), { readOnly: true });

  return {
    async createJob(request, ctx) {
      const { orgId } = userOf(ctx);
      requireInput(request);
      if (request.name !== '') requireName('name', request.name);
      requireStorable('labels', request.labels);
      await context.organizations.require(orgId, 'writing');
      const resolved = await resolveJob(context, orgId, request);
      const method = JobService.method.createJob;
      const { job } = await changeOrganization(context, ctx, method, request, async (tx, { userId, organization }) => {
        const row = await createJob(context, tx, { orgId, userId, quotas: organization.quotas }, resolved);
        const fact = {
          action: 'jobs.create',
          entityType: 'job',
          entityId: row.job_id,
          pipelineId: row.pipeline_id,
          jobId: row.job_id,
          requestId: request.requestId,
          metadata: { molecule_set_id: row.molecule_set_id },
        };
        await audit(tx, boss, auditEvent(ctx, orgId, fact));
        return create(CreateJobResponseSchema, { job: jobMessage(row) });
      });
      const { jobId } = job!;
      await tryInline(context, ctx, { org_id: orgId, job_id: jobId }, materialize);
      // A repeat names the same job; how it stands is told as it is now.
      return { job: jobMessage(await current(orgId, jobId)) };
    },

    async getJob({ jobId }, ctx) {
      const row = await readOrganization(context, ctx, (tx, orgId) => readJob(tx, orgId, jobId));
      // Neither holds a connection of the other's, and neither can take the light record away.
      const [tenant, waiting] = await Promise.all([tenantJob(context, row, ctx), waitingOf(context, row, ctx)]);
      return { job: jobMessage(row), tenant, waiting };
    },

    async listJobs(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const state = request.state === JobStateMessage.UNSPECIFIED ? null : jobStateOf(request.state)!;
        const query = { list: 'jobs', orgId, state };
        const page = pageOf(request, { query, isCursor: isUuidCursor });
        // The cursor is a job's id; its time is read, so that the index in the order of times serves every page.
        const rows = await tx.query<JobView>(
          `SELECT ${JOB_COLUMNS} FROM catalog.jobs_meta
           WHERE org_id = $1 AND ($2::catalog.job_status IS NULL OR status = $2)
             AND ($3::uuid IS NULL OR (created_at, job_id) <
               (SELECT c.created_at, c.job_id FROM catalog.jobs_meta c WHERE c.org_id = $1 AND c.job_id = $3))
           ORDER BY created_at DESC, job_id DESC LIMIT $4`,
          [orgId, state, page.cursor ?? null, page.size + 1],
        );
        const { shown, nextPageToken } = pageOfRows(rows, page, query, (row) => row.job_id);
        return { jobs: shown.map(jobMessage), nextPageToken };
      });
    },

    async cancelJob(request, ctx) {
      const { jobId } = request;
      const { orgId } = userOf(ctx);
      const method = JobService.method.cancelJob;
      await changeOrganization(context, ctx, method, request, async (tx, { userId }) => {
        await requestCancel(tx, boss, { orgId, jobId, userId });
        const fact = { action: 'jobs.cancel', entityType: 'job', entityId: jobId, jobId, requestId: request.requestId };
        await audit(tx, boss, auditEvent(ctx, orgId, fact));
        return create(CancelJobResponseSchema, { job: jobMessage(await readJob(tx, orgId, jobId)) });
      });
      await tryInline(context, ctx, { org_id: orgId, job_id: jobId }, cancel);
      return { job: jobMessage(await current(orgId, jobId)) };
    },

    async *listJobInputs({ orgId, jobId, afterItemNo }, ctx) {
      const [job] = await database.inOrg(
        orgId,
        (tx) =>
          tx.query<{ molecule_set_id: string }>(
            'SELECT molecule_set_id FROM catalog.jobs_meta WHERE org_id = $1 AND job_id = $2',
            [orgId, jobId],
          ),
        { readOnly: true, signal: ctx.signal },
      );
      if (!job) throw notFound('job', jobId);
      // A transaction for each batch: a slow reader holds no connection.
      for (let after = afterItemNo; ;) {
        const rows = await database.inOrg(
          orgId,
          (tx) =>
            tx.query<InputRow>(
              `SELECT m.item_no, m.molecule_id, c.canonical_smiles, c.name, c.properties FROM catalog.molecule_set_members m
               JOIN catalog.molecules c ON c.org_id = m.org_id AND c.molecule_id = m.molecule_id
               WHERE m.org_id = $1 AND m.molecule_set_id = $2 AND m.item_no > $3 ORDER BY m.item_no LIMIT ${INPUT_BATCH}`,
              [orgId, job.molecule_set_id, after],
            ),
          { readOnly: true, signal: ctx.signal },
        );
        if (rows.length === 0) return;
        yield {
          inputs: rows.map((row) => ({
            itemNo: row.item_no,
            moleculeId: row.molecule_id,
            canonicalSmiles: row.canonical_smiles,
            properties: inputProperties(row),
            name: row.name,
          })),
        };
        if (rows.length < INPUT_BATCH) return;
        after = rows.at(-1)!.item_no;
      }
    },
  };
}
