import { create, type JsonObject } from '@bufbuild/protobuf';
import { Code, type ConnectError, type ServiceImpl } from '@connectrpc/connect';
import { idempotent } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import {
  CreateOrganizationResponseSchema,
  EraseOrganizationResponseSchema,
  OrganizationService,
  OrganizationSettingsSchema,
  ResumeOrganizationResponseSchema,
  FreezeOrganizationResponseSchema,
  SuspendOrganizationResponseSchema,
  UpdateOrganizationResponseSchema,
  UpdateOrganizationSettingsResponseSchema,
} from '@mad/proto/identity';
import { callerOf, invalid, nextPageToken, pageOf, requireName, requireStorable, rpcError } from '@mad/rpc';
import { recordAudit } from '../audit/record.ts';
import type { IdentityContext } from '../context.ts';
import type { OrganizationRow, OrgSettingsRow } from '../db/entities/organization.ts';
import {
  changeOrganization,
  changeOrganizationAsPlatform,
  organizationNotFound,
  readOrganization,
  requester,
} from '../organization-scope.ts';
import { ENSURE_TENANT } from '../queue/queues.ts';
import {
  eraseOrganization,
  freezeOrganization,
  resumeOrganization,
  suspendOrganization,
} from './organization-state.ts';
import { getOrganizationUse, listOrganizationUse } from './organization-use.ts';
import { ORGANIZATION_COLUMNS, organizationMessage, requestedQuotas } from './organization.ts';

const SETTINGS_COLUMNS = 'org_id, storage_prefix, config, version';

function changedSinceRead(): ConnectError {
  return rpcError(Code.Aborted, 'ETAG_MISMATCH', 'changed since it was read: read it again', {});
}

function settingsMessage(row: OrgSettingsRow) {
  return create(OrganizationSettingsSchema, {
    orgId: row.org_id,
    storagePrefix: row.storage_prefix,
    config: row.config as JsonObject,
    etag: String(row.version),
  });
}

/** Which of "name" and "quotas" an update changes. Throws INVALID_ARGUMENT for an empty or a foreign mask. */
function maskedFields(paths: readonly string[]): ReadonlySet<string> {
  const unknown = paths.find((path) => path !== 'name' && path !== 'quotas');
  if (unknown !== undefined) throw invalid('update_mask', `${JSON.stringify(unknown)} cannot be changed`);
  if (paths.length === 0) throw invalid('update_mask', 'names nothing to change');
  return new Set(paths);
}

/** Organizations, for platform administrators and their own members. */
export function organizationService(context: IdentityContext): ServiceImpl<typeof OrganizationService> {
  const { database, boss } = context;
  return {
    async createOrganization(request, ctx) {
      requireName('name', request.name);
      const quotas = requestedQuotas(request.quotas);
      const orgId = uuidv7();
      const eager = context.provisioning === 'eager';
      const options = {
        schema: 'identity',
        // The organization is made by this very call: a repeat would not find its key under another new id.
        orgId: undefined,
        method: OrganizationService.method.createOrganization,
        request,
        caller: requester(callerOf(ctx)),
      };
      return database.asSystem(
        (tx) =>
          idempotent(tx, options, async () => {
            const [row] = await tx.query<OrganizationRow>(
              `INSERT INTO identity.organizations (org_id, name, slug, status, region, quotas)
               VALUES ($1, $2, $3, $4, $5, $6) RETURNING ${ORGANIZATION_COLUMNS}`,
              [
                orgId,
                request.name,
                request.slug,
                eager ? 'provisioning' : 'active',
                request.region || context.defaultRegion,
                JSON.stringify(quotas),
              ],
            );
            await tx.execute('INSERT INTO identity.org_settings (org_id, storage_prefix) VALUES ($1, $2)', [
              orgId,
              `orgs/${orgId}`,
            ]);
            await recordAudit(tx, ctx, orgId, {
              action: 'organizations.create',
              entityType: 'organization',
              entityId: orgId,
              requestId: request.requestId,
              metadata: { slug: request.slug },
            });
            if (eager) await boss.send(tx, ENSURE_TENANT, { org_id: orgId }, { key: orgId });
            return create(CreateOrganizationResponseSchema, { organization: organizationMessage(row!) });
          }),
        { signal: ctx.signal },
      );
    },

    async getOrganization(_request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const [row] = await tx.query<OrganizationRow>(
          `SELECT ${ORGANIZATION_COLUMNS} FROM identity.organizations WHERE org_id = $1`,
          [orgId],
        );
        return { organization: organizationMessage(row!) };
      });
    },

    async listOrganizations(request, ctx) {
      const query = { list: 'organizations', slug: request.slug };
      const page = pageOf(request, { query, isCursor: (cursor) => typeof cursor === 'string' });
      const rows = await database.asSystem(
        (tx) =>
          tx.query<OrganizationRow>(
            `SELECT ${ORGANIZATION_COLUMNS} FROM identity.organizations
             WHERE ($1 = '' OR slug = $1) AND ($2::uuid IS NULL OR org_id < $2::uuid)
             ORDER BY org_id DESC LIMIT $3`,
            [request.slug, page.cursor ?? null, page.size + 1],
          ),
        { signal: ctx.signal },
      );
      const shown = rows.slice(0, page.size);
      return {
        organizations: shown.map(organizationMessage),
        nextPageToken: rows.length > page.size ? nextPageToken(query, shown.at(-1)!.org_id) : '',
      };
    },

    async updateOrganization(request, ctx) {
      const fields = maskedFields(request.updateMask?.paths ?? []);
      if (fields.has('name')) requireName('name', request.name);
      const quotas = fields.has('quotas') ? requestedQuotas(request.quotas) : undefined;
      const method = OrganizationService.method.updateOrganization;
      return changeOrganizationAsPlatform(context, ctx, method, request, async (tx) => {
        const [row] = await tx.query<OrganizationRow>(
          `UPDATE identity.organizations SET name = coalesce($2, name), quotas = coalesce($3::jsonb, quotas),
             version = version + 1, updated_at = now()
           WHERE org_id = $1 AND ($4 = '' OR version::text = $4) RETURNING ${ORGANIZATION_COLUMNS}`,
          [
            request.orgId,
            fields.has('name') ? request.name : null,
            quotas === undefined ? null : JSON.stringify(quotas),
            request.etag,
          ],
        );
        if (row === undefined) throw changedSinceRead();
        await recordAudit(tx, ctx, request.orgId, {
          action: 'organizations.update',
          entityType: 'organization',
          entityId: request.orgId,
          requestId: request.requestId,
          metadata: { fields: [...fields] },
        });
        return create(UpdateOrganizationResponseSchema, { organization: organizationMessage(row) });
      });
    },

    async suspendOrganization(request, ctx) {
      requireName('reason', request.reason, { mayBeEmpty: true });
      const method = OrganizationService.method.suspendOrganization;
      return changeOrganizationAsPlatform(context, ctx, method, request, async (tx) => {
        const row = await suspendOrganization(tx, ctx, boss, request);
        return create(SuspendOrganizationResponseSchema, { organization: organizationMessage(row) });
      });
    },

    async freezeOrganization(request, ctx) {
      requireName('reason', request.reason, { mayBeEmpty: true });
      const method = OrganizationService.method.freezeOrganization;
      return changeOrganizationAsPlatform(context, ctx, method, request, async (tx) => {
        const row = await freezeOrganization(tx, ctx, boss, request);
        return create(FreezeOrganizationResponseSchema, { organization: organizationMessage(row) });
      });
    },

    async resumeOrganization(request, ctx) {
      const method = OrganizationService.method.resumeOrganization;
      return changeOrganizationAsPlatform(context, ctx, method, request, async (tx) => {
        const row = await resumeOrganization(tx, ctx, boss, request);
        return create(ResumeOrganizationResponseSchema, { organization: organizationMessage(row) });
      });
    },

    async eraseOrganization(request, ctx) {
      requireName('reason', request.reason, { mayBeEmpty: true });
      const method = OrganizationService.method.eraseOrganization;
      return changeOrganizationAsPlatform(context, ctx, method, request, async (tx) => {
        const { row, erasureId } = await eraseOrganization(tx, ctx, boss, request);
        return create(EraseOrganizationResponseSchema, { organization: organizationMessage(row), erasureId });
      });
    },

    async getOrganizationSettings(_request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const [row] = await tx.query<OrgSettingsRow>(
          `SELECT ${SETTINGS_COLUMNS} FROM identity.org_settings WHERE org_id = $1`,
          [orgId],
        );
        return { settings: settingsMessage(row!) };
      });
    },

    async updateOrganizationSettings(request, ctx) {
      const config = request.config ?? {};
      requireStorable('config', config);
      const method = OrganizationService.method.updateOrganizationSettings;
      return changeOrganization(context, ctx, method, request, async (tx, orgId) => {
        const [row] = await tx.query<OrgSettingsRow>(
          `UPDATE identity.org_settings SET config = $2, version = version + 1, updated_at = now()
           WHERE org_id = $1 AND ($3 = '' OR version::text = $3) RETURNING ${SETTINGS_COLUMNS}`,
          [orgId, JSON.stringify(config), request.etag],
        );
        if (row === undefined) throw changedSinceRead();
        await recordAudit(tx, ctx, orgId, {
          action: 'organizations.update_settings',
          entityType: 'organization',
          entityId: orgId,
          requestId: request.requestId,
        });
        return create(UpdateOrganizationSettingsResponseSchema, { settings: settingsMessage(row) });
      });
    },

    async describeOrganization(request, ctx) {
      const row = await database.inOrg(
        request.orgId,
        async (tx) => {
          const [found] = await tx.query<OrganizationRow>(
            `SELECT ${ORGANIZATION_COLUMNS} FROM identity.organizations WHERE org_id = $1`,
            [request.orgId],
          );
          return found;
        },
        { readOnly: true, signal: ctx.signal },
      );
      if (row === undefined) throw organizationNotFound(request.orgId);
      return { organization: organizationMessage(row) };
    },

    getOrganizationUse: (request, ctx) => getOrganizationUse(database, request, ctx),
    listOrganizationUse: (request, ctx) => listOrganizationUse(database, request, ctx),
  };
}
