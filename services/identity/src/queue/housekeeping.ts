import { deleteExpiredIdempotencyKeys, type Boss, type Database } from '@mad/postgres';
import type { SigningKeys } from '../keys/signing-keys.ts';
import { ENSURE_TENANT, type OrganizationMessage } from './queues.ts';

/** Ended sessions are kept this long: whoever uses one of their tokens meanwhile is told that it was used before. */
const KEEP_SESSIONS = '7 days';

/** What the hourly round works on. */
export interface HousekeepingWork {
  database: Database;
  boss: Boss;
  keys: SigningKeys;
}

/** One round: rotates keys, deletes what has expired, and asks again for databases whose messages were used up. */
export async function keepHouse({ database, boss, keys }: HousekeepingWork): Promise<void> {
  await keys.rotate();
  await database.asSystem(async (tx) => {
    await deleteExpiredIdempotencyKeys(tx, 'identity');
    await tx.execute(`DELETE FROM identity.user_sessions WHERE expires_at < now() - interval '${KEEP_SESSIONS}'`);
  });
  await database.asSystem(async (tx) => {
    const waiting = await tx.query<OrganizationMessage>(
      `SELECT org_id FROM identity.organizations WHERE status = 'provisioning'`,
    );
    for (const { org_id } of waiting) await boss.send(tx, ENSURE_TENANT, { org_id }, { key: org_id });
  });
}
