import { create } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import { uuidv7 } from '@mad/process';
import {
  CreatePipelineResponseSchema,
  CreatePipelineVersionResponseSchema,
  PipelineService,
  PublishPipelineVersionResponseSchema,
} from '@mad/proto/catalog';
import { invalidFields, notFound, orgOf, pageOf, requireName, requireStorable } from '@mad/rpc';
import { audit, auditEvent } from '../audit.ts';
import type { CatalogContext } from '../context.ts';
import type { PipelineRow, PipelineTemplateRow, PipelineVersionRow } from '../db/entities/pipeline.ts';
import type { TaskDefinitionRow } from '../db/entities/task-definition.ts';
import { checkSpec } from '../domain/pipeline-spec.ts';
import { changeOrganization, readOrganization } from '../organization-scope.ts';
import { PIPELINE_VERSION_COLUMNS, readVersion } from '../pipeline-versions.ts';
import { seedCatalog } from '../seed.ts';
import { TASK_DEFINITION_COLUMNS, taskDefinition } from '../task-definitions.ts';
import { isIntegerCursor, isTextCursor, isUuidCursor, pageOfRows } from './page.ts';
import { PIPELINE_COLUMNS, readPipeline } from './pipeline-rows.ts';
import { publishVersion } from './pipeline-publish.ts';
import {
  pipelineMessage,
  pipelineTemplateMessage,
  pipelineVersionMessage,
  specOf,
  taskDefinitionMessage,
} from './pipeline.ts';

/** Where a task definition stands in the list: by name, then version; an organization's own after the product's. */
const DEFINITION_PLACE = `(task_id || '@' || lpad(version, 6, '0') || coalesce(org_id::text, '')) COLLATE "C"`;

/** Pipelines, their versions, and what they are made of. */
export function pipelineService(context: CatalogContext): ServiceImpl<typeof PipelineService> {
  const { boss, database, pipelineVersions, schemaValidator, taskDefinitions } = context;
  return {
    async createPipeline(request, ctx) {
      requireName('name', request.name);
      requireStorable('description', request.description);
      const method = PipelineService.method.createPipeline;
      return changeOrganization(context, ctx, method, request, async (tx, { orgId, userId }) => {
        const [row] = await tx.query<PipelineRow>(
          `INSERT INTO catalog.pipelines (pipeline_id, org_id, name, description, created_by)
           VALUES ($1, $2, $3, $4, $5) RETURNING ${PIPELINE_COLUMNS}`,
          [uuidv7(), orgId, request.name, request.description, userId],
        );
        const { pipeline_id: pipelineId } = row!;
        const fact = { entityType: 'pipeline', entityId: pipelineId, pipelineId, requestId: request.requestId };
        await audit(tx, boss, auditEvent(ctx, orgId, { action: 'pipelines.create', ...fact }));
        return create(CreatePipelineResponseSchema, { pipeline: pipelineMessage(row!) });
      });
    },

    async getPipeline(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        return { pipeline: pipelineMessage(await readPipeline(tx, orgId, request.pipelineId)) };
      });
    },

    async listPipelines(request, ctx) {
      requireStorable('name', request.name);
      return readOrganization(context, ctx, async (tx, orgId) => {
        const query = { list: 'pipelines', orgId, name: request.name };
        const page = pageOf(request, { query, isCursor: isUuidCursor });
        const rows = await tx.query<PipelineRow>(
          `SELECT ${PIPELINE_COLUMNS} FROM catalog.pipelines
           WHERE (org_id = $1 OR visibility = 'public') AND ($2 = '' OR name = $2)
             AND ($3::uuid IS NULL OR pipeline_id < $3::uuid)
           ORDER BY pipeline_id DESC LIMIT $4`,
          [orgId, request.name, page.cursor ?? null, page.size + 1],
        );
        const { shown, nextPageToken } = pageOfRows(rows, page, query, (row) => row.pipeline_id);
        return { pipelines: shown.map(pipelineMessage), nextPageToken };
      });
    },

    async createPipelineVersion(request, ctx) {
      const spec = specOf(request.spec!);
      requireStorable('spec', spec);
      const problems = checkSpec(spec, await taskDefinitions.of(orgOf(ctx)), schemaValidator);
      if (problems.length > 0) throw invalidFields(problems);
      const method = PipelineService.method.createPipelineVersion;
      return changeOrganization(context, ctx, method, request, async (tx, { orgId, userId }) => {
        const { pipelineId, requestId } = request;
        // Numbers follow each other: two versions made at the same time wait for one another here.
        const locked = await tx.query(
          'SELECT 1 FROM catalog.pipelines WHERE org_id = $1 AND pipeline_id = $2 FOR NO KEY UPDATE',
          [orgId, pipelineId],
        );
        if (locked.length === 0) throw notFound('pipeline', pipelineId);
        const [row] = await tx.query<PipelineVersionRow>(
          `INSERT INTO catalog.pipeline_versions AS v (pipeline_version_id, org_id, pipeline_id, version, spec, created_by)
           SELECT $1, $2, $3, coalesce(max(old.version), 0) + 1, $4::jsonb, $5
           FROM catalog.pipeline_versions old WHERE old.org_id = $2 AND old.pipeline_id = $3
           RETURNING ${PIPELINE_VERSION_COLUMNS}`,
          [uuidv7(), orgId, pipelineId, JSON.stringify(spec), userId],
        );
        const fact = {
          action: 'pipelines.create_version',
          entityType: 'pipeline_version',
          entityId: row!.pipeline_version_id,
          pipelineId,
          requestId,
          metadata: { version: row!.version },
        };
        await audit(tx, boss, auditEvent(ctx, orgId, fact));
        return create(CreatePipelineVersionResponseSchema, { pipelineVersion: pipelineVersionMessage(row!) });
      });
    },

    async publishPipelineVersion(request, ctx) {
      const find = await taskDefinitions.of(orgOf(ctx));
      const method = PipelineService.method.publishPipelineVersion;
      return changeOrganization(context, ctx, method, request, async (tx, { orgId }) => {
        const { pipelineId, version, requestId } = request;
        const row = await publishVersion(tx, { orgId, pipelineId, version }, find, schemaValidator);
        const fact = {
          action: 'pipelines.publish',
          entityType: 'pipeline_version',
          entityId: row.pipeline_version_id,
          pipelineId,
          requestId,
          metadata: { version },
        };
        await audit(tx, boss, auditEvent(ctx, orgId, fact));
        return create(PublishPipelineVersionResponseSchema, { pipelineVersion: pipelineVersionMessage(row) });
      });
    },

    async getPipelineVersion({ pipelineId, version }, ctx) {
      const orgId = orgOf(ctx);
      await context.organizations.require(orgId, 'reading');
      const published = await pipelineVersions.published(orgId, pipelineId, version);
      if (published) return { pipelineVersion: published };
      const row = await database.inOrg(orgId, (tx) => readVersion(tx, orgId, pipelineId, version), {
        readOnly: true,
        signal: ctx.signal,
      });
      if (!row) throw notFound('pipeline version', `${pipelineId}/${version}`);
      return { pipelineVersion: pipelineVersionMessage(row) };
    },

    async listPipelineVersions(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const { pipelineId } = request;
        await readPipeline(tx, orgId, pipelineId);
        const query = { list: 'pipeline versions', orgId, pipelineId };
        const page = pageOf(request, { query, isCursor: isIntegerCursor });
        const rows = await tx.query<PipelineVersionRow>(
          `SELECT ${PIPELINE_VERSION_COLUMNS} FROM catalog.pipeline_versions v
           WHERE v.pipeline_id = $2 AND (v.org_id = $1 OR v.published) AND ($3::int IS NULL OR v.version < $3::int)
           ORDER BY v.version DESC LIMIT $4`,
          [orgId, pipelineId, page.cursor ?? null, page.size + 1],
        );
        const { shown, nextPageToken } = pageOfRows(rows, page, query, (row) => row.version);
        return { pipelineVersions: shown.map(pipelineVersionMessage), nextPageToken };
      });
    },

    async listTaskDefinitions(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const query = { list: 'task definitions', orgId };
        const page = pageOf(request, { query, isCursor: isTextCursor });
        const rows = await tx.query<TaskDefinitionRow & { place: string }>(
          `SELECT ${TASK_DEFINITION_COLUMNS}, ${DEFINITION_PLACE} AS place FROM catalog.task_definitions
           WHERE (org_id = $1 OR org_id IS NULL) AND is_active AND ($2::text IS NULL OR ${DEFINITION_PLACE} > $2)
           ORDER BY place LIMIT $3`,
          [orgId, page.cursor ?? null, page.size + 1],
        );
        const { shown, nextPageToken } = pageOfRows(rows, page, query, (row) => row.place);
        return { taskDefinitions: shown.map((row) => taskDefinitionMessage(taskDefinition(row))), nextPageToken };
      });
    },

    async listPipelineTemplates(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const query = { list: 'pipeline templates', orgId };
        const page = pageOf(request, { query, isCursor: isTextCursor });
        const rows = await tx.query<PipelineTemplateRow>(
          `SELECT pipeline_template_id, name, description, category, workflow_definition, default_parameters
           FROM catalog.pipeline_templates WHERE $1::text IS NULL OR name > $1 ORDER BY name LIMIT $2`,
          [page.cursor ?? null, page.size + 1],
        );
        const { shown, nextPageToken } = pageOfRows(rows, page, query, (row) => row.name);
        return { pipelineTemplates: shown.map(pipelineTemplateMessage), nextPageToken };
      });
    },

    async seedCatalog(_request, ctx) {
      return database.asSystem((tx) => seedCatalog(tx, context.rdkitVersion), { signal: ctx.signal });
    },
  };
}
