import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { MemberSchema, type Member } from '@mad/proto/identity';
import type { Tx } from '@mad/postgres';
import type { UserRow } from '../db/entities/person.ts';

/** A member as read for callers. */
export type MemberRow = Pick<UserRow, 'user_id' | 'email' | 'display_name' | 'enabled'> & {
  org_id: string;
  user_created_at: Date;
  created_at: Date;
  roles: string[];
};

const SELECT_MEMBER = `
  SELECT m.org_id, m.created_at, u.user_id, u.email::text AS email, u.display_name, u.enabled,
         u.created_at AS user_created_at,
         ARRAY(SELECT r.name FROM identity.membership_roles mr JOIN identity.roles r ON r.role_id = mr.role_id
                WHERE mr.user_id = m.user_id AND mr.org_id = m.org_id ORDER BY r.name) AS roles
  FROM identity.memberships m JOIN identity.users u ON u.user_id = m.user_id`;

/** A member as callers see one. */
export function memberMessage(row: MemberRow): Member {
  return create(MemberSchema, {
    orgId: row.org_id,
    user: {
      userId: row.user_id,
      email: row.email,
      displayName: row.display_name,
      enabled: row.enabled,
      createTime: timestampFromDate(row.user_created_at),
    },
    roles: row.roles,
    createTime: timestampFromDate(row.created_at),
  });
}

/** Reads one member of an organization. */
export async function findMember(tx: Tx, orgId: string, userId: string): Promise<MemberRow | undefined> {
  const [row] = await tx.query<MemberRow>(`${SELECT_MEMBER} WHERE m.org_id = $1 AND m.user_id = $2`, [orgId, userId]);
  return row;
}

/** Where a page of members goes on: the time the last one joined, and who it was. */
export type MemberCursor = [joined: string, userId: string];

/** Reads members in the order they joined. */
export function listMembers(
  tx: Tx,
  orgId: string,
  after: MemberCursor | undefined,
  limit: number,
): Promise<MemberRow[]> {
  return tx.query<MemberRow>(
    `${SELECT_MEMBER} WHERE m.org_id = $1
       AND ($2::timestamptz IS NULL OR (m.created_at, m.user_id) > ($2::timestamptz, $3::uuid))
     ORDER BY m.created_at, m.user_id LIMIT $4`,
    [orgId, after?.[0] ?? null, after?.[1] ?? null, limit],
  );
}
