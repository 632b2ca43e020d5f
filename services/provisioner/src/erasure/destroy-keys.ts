import type { Tx } from '@mad/postgres';
import { SECOND_MS, sleep } from '@mad/process';
import { KEYS_LOCK, rewriteKeys } from '../backups/metadata.ts';
import type { Held } from '../operations/lease.ts';
import type { StepContext } from '../provisioning/steps.ts';
import { noteTally } from './tally.ts';

const RETRY_MS = SECOND_MS / 2;

/** Somebody is archiving keys. */
class KeysInUse extends Error {
  override readonly name = 'KeysInUse';
}

/**
 * Destroys an organization's data keys and what they seal, here and in the archive of the metadata's keys, which is written
 * anew without them. Nothing that was sealed under them can be read from then on, wherever a copy of it is.
 */
export async function destroyKeys(context: StepContext, held: Held, stop: AbortSignal): Promise<void> {
  // A metadata backup under way would write the keys as it saw them: it is waited for, however long it takes.
  while (!(await destroyedNow(context, held))) await sleep(RETRY_MS, stop);
}

/** False, and nothing done, while a metadata backup is under way. Its end is not awaited with the tenant's row held. */
async function destroyedNow({ database, master, objects }: StepContext, held: Held): Promise<boolean> {
  try {
    await noteTally(database, held, async (tally, tx) => {
      await takeKeysLock(tx);
      await tx.execute('DELETE FROM provisioner.tenant_credentials WHERE org_id = $1', [held.orgId]);
      const gone = await tx.execute('DELETE FROM provisioner.data_keys WHERE org_id = $1', [held.orgId]);
      // Before the commit: whoever dies in between begins this step anew, and finds the keys still there to destroy.
      await rewriteKeys({ master, objects }, tx.client);
      return { keys: tally.keys + gone };
    });
    return true;
  } catch (error) {
    if (error instanceof KeysInUse) return false;
    throw error;
  }
}

/** Until the transaction ends. Throws KeysInUse instead of waiting. */
async function takeKeysLock(tx: Tx): Promise<void> {
  const [lock] = await tx.query<{ taken: boolean }>(
    'SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS taken',
    [KEYS_LOCK],
  );
  if (!lock!.taken) throw new KeysInUse();
}
