import type { Database } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { appendAudit } from './audit/append.ts';
import { auditEvent } from './audit/record.ts';
import type { AdministratorConfig } from './config.ts';
import { PLATFORM_ORG_ID } from './domain/audit-chain.ts';
import { PLATFORM_ROLE } from './domain/permissions.ts';
import { readPermissionCatalogue } from './permission-catalogue.ts';
import { hashPassword, MIN_PASSWORD_LENGTH } from './secrets/passwords.ts';
import { seedRoles } from './seed.ts';

/**
 * Makes the first platform administrator, and the built-in roles, unless there is an administrator already: an
 * existing one's password stays as it is. Throws when the password is short or the address belongs to an account that
 * is no administrator's.
 */
export async function ensureFirstAdministrator(
  database: Pick<Database, 'asSystem'>,
  { email, password }: AdministratorConfig,
): Promise<{ userId: string; created: boolean }> {
  if (password.length < MIN_PASSWORD_LENGTH) {
    throw new RangeError(`an administrator's password has at least ${MIN_PASSWORD_LENGTH} characters`);
  }
  const hashed = await hashPassword(password);
  return database.asSystem(async (tx) => {
    await tx.query(`SELECT pg_advisory_xact_lock(hashtext('mad.identity.first_administrator'))`);
    await seedRoles(tx, readPermissionCatalogue());
    const [existing] = await tx.query<{ user_id: string }>(
      'SELECT user_id FROM identity.users WHERE role = $1 ORDER BY created_at, user_id LIMIT 1',
      [PLATFORM_ROLE],
    );
    if (existing !== undefined) return { userId: existing.user_id, created: false };
    const userId = uuidv7();
    const made = await tx.execute(
      `INSERT INTO identity.users (user_id, email, display_name, hashed_password, role)
       VALUES ($1, $2::citext, 'Administrator', $3, $4) ON CONFLICT (email) DO NOTHING`,
      [userId, email, hashed, PLATFORM_ROLE],
    );
    if (made === 0) throw new Error(`the account ${email} exists and is not an administrator's`);
    const fact = { action: 'administrators.create', entityType: 'user', entityId: userId };
    await appendAudit(tx, PLATFORM_ORG_ID, [auditEvent(PLATFORM_ORG_ID, fact, { actorKind: 'service', userId: null })]);
    return { userId, created: true };
  });
}
