import type { TenantTx } from '@mad/tenancy';

const LOCK = `hashtext('mad.retention')`;

/**
 * Keeps retention from deleting until the transaction ends: taken by whoever makes a row need another one (an answer its
 * source, a pin its result) before looking. They do not wait for each other.
 */
export async function holdOffRetention(tx: TenantTx): Promise<void> {
  await tx.query(`SELECT pg_advisory_xact_lock_shared(${LOCK})`);
}

/** Waits for everybody who holds retention off, then keeps them out until the transaction ends. */
export async function lockRetention(tx: TenantTx): Promise<void> {
  await tx.query(`SELECT pg_advisory_xact_lock(${LOCK})`);
}
