import { KEYS_LOCK, rewriteKeys } from '../backups/metadata.ts';
import type { Held } from '../operations/lease.ts';
import type { StepContext } from '../provisioning/steps.ts';
import { noteTally } from './tally.ts';

/**
 * Destroys an organization's data keys and what they seal, here and in the archive of the metadata's keys, which is written
 * anew without them. Nothing that was sealed under them can be read from then on, wherever a copy of it is.
 */
export async function destroyKeys({ database, master, objects }: StepContext, held: Held): Promise<void> {
  await noteTally(database, held, async (tally, tx) => {
    // A metadata backup under way would write the keys as it saw them: it is waited for, however long it takes.
    await tx.execute('SET LOCAL statement_timeout = 0');
    await tx.execute('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [KEYS_LOCK]);
    await tx.execute('DELETE FROM provisioner.tenant_credentials WHERE org_id = $1', [held.orgId]);
    const gone = await tx.execute('DELETE FROM provisioner.data_keys WHERE org_id = $1', [held.orgId]);
    // Before the commit: whoever dies in between begins this step anew, and finds the keys still there to destroy.
    await rewriteKeys({ master, objects }, tx.client);
    return { keys: tally.keys + gone };
  });
}
