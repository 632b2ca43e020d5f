import { createHash } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { Code, type ServiceImpl } from '@connectrpc/connect';
import { parseReceptor, ReceptorError } from '@mad/chemistry';
import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import {
  ArtifactPurpose,
  ArtifactSchema,
  ArtifactService,
  CreateArtifactResponseSchema,
  type Artifact,
} from '@mad/proto/catalog';
import { invalid, invalidFields, notFound, orgOf, pageOf, requireName, rpcError } from '@mad/rpc';
import { audit, auditEvent } from '../audit.ts';
import type { CatalogContext } from '../context.ts';
import type { ArtifactPurposeName, ArtifactRow } from '../db/entities/artifact.ts';
import { changeOrganization, readOrganization } from '../organization-scope.ts';
import { chargeQuota } from '../usage.ts';
import { isUuidCursor, pageOfRows } from './page.ts';

const COLUMNS = 'artifact_id, org_id, purpose, name, content_type, uri, size_bytes, sha256, created_at';

const PURPOSES: Record<ArtifactPurposeName, { message: ArtifactPurpose; contentType: string }> = {
  receptor: { message: ArtifactPurpose.RECEPTOR, contentType: 'chemical/x-pdbqt' },
  other: { message: ArtifactPurpose.OTHER, contentType: 'application/octet-stream' },
};

const CONTENT_TYPE = /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+(; ?[\w!#$&^.+-]+=[\w!#$&^.+-]+)*$/;

function purposeName(purpose: ArtifactPurpose): ArtifactPurposeName {
  return purpose === ArtifactPurpose.RECEPTOR ? 'receptor' : 'other';
}

function artifactMessage(row: ArtifactRow): Artifact {
  return create(ArtifactSchema, {
    artifactId: row.artifact_id,
    orgId: row.org_id,
    purpose: PURPOSES[row.purpose].message,
    name: row.name,
    contentType: row.content_type,
    sizeBytes: BigInt(row.size_bytes),
    sha256: row.sha256,
    createTime: timestampFromDate(row.created_at),
  });
}

/** The content as it is kept: a receptor in canonical form. Throws INVALID_ARGUMENT naming the lines at fault. */
function keptContent(purpose: ArtifactPurposeName, content: Uint8Array): Uint8Array {
  if (purpose !== 'receptor') return content;
  try {
    return Buffer.from(parseReceptor(Buffer.from(content).toString('utf8')).text);
  } catch (error) {
    if (!(error instanceof ReceptorError)) throw error;
    const descriptions = error.problems.map(({ line, message }) => (line > 0 ? `line ${line}: ${message}` : message));
    throw invalidFields(descriptions.map((description) => ({ field: 'content', description })));
  }
}

function sha256Of(content: Uint8Array): string {
  return createHash('sha256').update(content).digest('hex');
}

async function readArtifactRow(tx: Tx, orgId: string, artifactId: string): Promise<ArtifactRow> {
  const [row] = await tx.query<ArtifactRow>(
    `SELECT ${COLUMNS} FROM catalog.artifacts WHERE org_id = $1 AND artifact_id = $2`,
    [orgId, artifactId],
  );
  if (!row) throw notFound('artifact', artifactId);
  return row;
}

/** Immutable objects: receptors and other inputs. */
export function artifactService(context: CatalogContext): ServiceImpl<typeof ArtifactService> {
  const { boss, database, objects, organizations, verifyLease } = context;

  /** An artifact's content, checked against what the registry says of it. */
  async function contentOf(row: ArtifactRow): Promise<Uint8Array> {
    const content = await objects.get(row.uri);
    if (sha256Of(content) === row.sha256) return content;
    throw new Error(`the object ${row.uri} is not what was stored under it`);
  }

  return {
    async createArtifact(request, ctx) {
      requireName('name', request.name);
      const { contentType, requestId } = request;
      if (contentType !== '' && !CONTENT_TYPE.test(contentType)) throw invalid('content_type', 'must be a MIME type');
      const purpose = purposeName(request.purpose);
      await organizations.require(orgOf(ctx), 'writing');
      const content = keptContent(purpose, request.content);
      const sha256 = sha256Of(content);
      const uri = `orgs/${orgOf(ctx)}/artifacts/${sha256}`;
      const method = ArtifactService.method.createArtifact;
      return changeOrganization(context, ctx, method, request, async (tx, { orgId, userId, organization }) => {
        const [made] = await tx.query<ArtifactRow>(
          `INSERT INTO catalog.artifacts
             (org_id, artifact_id, purpose, name, content_type, uri, size_bytes, sha256, created_by)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
           ON CONFLICT (org_id, purpose, sha256) DO NOTHING RETURNING ${COLUMNS}`,
          [
            orgId,
            uuidv7(),
            purpose,
            request.name,
            contentType || PURPOSES[purpose].contentType,
            uri,
            content.length,
            sha256,
            userId,
          ],
        );
        if (!made) {
          const [known] = await tx.query<ArtifactRow>(
            `SELECT ${COLUMNS} FROM catalog.artifacts WHERE org_id = $1 AND purpose = $2 AND sha256 = $3`,
            [orgId, purpose, sha256],
          );
          return create(CreateArtifactResponseSchema, { artifact: artifactMessage(known!) });
        }
        const entity = { entityType: 'artifact', entityId: made.artifact_id };
        const fact = { action: 'artifacts.create', ...entity, requestId, metadata: { purpose, sha256 } };
        await audit(tx, boss, auditEvent(ctx, orgId, fact));
        await chargeQuota(tx, orgId, 'artifact_bytes', content.length, organization.quotas.maxStorageBytes);
        // Before the commit, so that no row names an object that is not there; after the quota, so that none is evaded.
        await objects.putIfAbsent(uri, content);
        return create(CreateArtifactResponseSchema, { artifact: artifactMessage(made) });
      });
    },

    async getArtifact({ artifactId }, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        return { artifact: artifactMessage(await readArtifactRow(tx, orgId, artifactId)) };
      });
    },

    async listArtifacts(request, ctx) {
      return readOrganization(context, ctx, async (tx, orgId) => {
        const query = { list: 'artifacts', orgId };
        const page = pageOf(request, { query, isCursor: isUuidCursor });
        const rows = await tx.query<ArtifactRow>(
          `SELECT ${COLUMNS} FROM catalog.artifacts
           WHERE org_id = $1 AND ($2::uuid IS NULL OR artifact_id < $2::uuid) ORDER BY artifact_id DESC LIMIT $3`,
          [orgId, page.cursor ?? null, page.size + 1],
        );
        const { shown, nextPageToken } = pageOfRows(rows, page, query, (row) => row.artifact_id);
        return { artifacts: shown.map(artifactMessage), nextPageToken };
      });
    },

    async downloadArtifact({ artifactId }, ctx) {
      const row = await readOrganization(context, ctx, (tx, orgId) => readArtifactRow(tx, orgId, artifactId));
      return { artifact: artifactMessage(row), content: await contentOf(row) };
    },

    async readArtifact({ orgId, artifactId, leaseToken }, ctx) {
      const lease = await verifyLease(leaseToken);
      if (lease.orgId !== orgId) {
        const message = 'the lease is of another organization';
        throw rpcError(Code.PermissionDenied, 'TOKEN_INVALID', message, { org_id: orgId });
      }
      await organizations.require(orgId, 'reading');
      const row = await database.inOrg(orgId, (tx) => readArtifactRow(tx, orgId, artifactId), {
        readOnly: true,
        signal: ctx.signal,
      });
      return { content: await contentOf(row), sha256: row.sha256 };
    },
  };
}
