import type { HandlerContext } from '@connectrpc/connect';
import type { Database } from '@mad/postgres';
import type { GetOrganizationUseRequest, ListOrganizationUseRequest } from '@mad/proto/identity';
import { nextPageToken, pageOf } from '@mad/rpc';
import type { OrganizationRow } from '../db/entities/organization.ts';
import { organizationNotFound } from '../organization-scope.ts';
import { ORGANIZATION_COLUMNS, organizationMessage } from './organization.ts';

/** An organization and what is counted of it, as the quotas count; 64-bit counts arrive as text. */
interface UseRow extends OrganizationRow {
  members: string;
  tokens: string;
}

const USE_COLUMNS = `${ORGANIZATION_COLUMNS},
  (SELECT count(*) FROM identity.memberships m WHERE m.org_id = o.org_id) AS members,
  (SELECT count(*) FROM identity.tokens t WHERE t.org_id = o.org_id AND NOT t.revoked AND t.expires_at > now()) AS tokens`;

const useMessage = (row: UseRow) => ({
  organization: organizationMessage(row),
  members: BigInt(row.members),
  tokens: BigInt(row.tokens),
});

/** One organization and its use, whatever its status. Throws NOT_FOUND. */
export async function getOrganizationUse(
  database: Database,
  { orgId }: GetOrganizationUseRequest,
  { signal }: HandlerContext,
) {
  const [row] = await database.inOrg(
    orgId,
    (tx) => tx.query<UseRow>(`SELECT ${USE_COLUMNS} FROM identity.organizations o WHERE o.org_id = $1`, [orgId]),
    { readOnly: true, signal },
  );
  if (row === undefined) throw organizationNotFound(orgId);
  return { use: useMessage(row) };
}

const isUuid = (cursor: unknown): boolean =>
  typeof cursor === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(cursor);

/** Every organization and its use, newest first. */
export async function listOrganizationUse(
  database: Database,
  request: ListOrganizationUseRequest,
  { signal }: HandlerContext,
) {
  const query = { list: 'organization use' };
  const page = pageOf(request, { query, isCursor: isUuid });
  const rows = await database.asSystem(
    (tx) =>
      tx.query<UseRow>(
        `SELECT ${USE_COLUMNS} FROM identity.organizations o
         WHERE $1::uuid IS NULL OR o.org_id < $1::uuid ORDER BY o.org_id DESC LIMIT $2`,
        [page.cursor ?? null, page.size + 1],
      ),
    { signal },
  );
  const shown = rows.slice(0, page.size);
  const more = rows.length > page.size;
  return { uses: shown.map(useMessage), nextPageToken: more ? nextPageToken(query, shown.at(-1)!.org_id) : '' };
}
