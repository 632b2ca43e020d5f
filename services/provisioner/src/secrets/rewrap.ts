import type { Database, Tx } from '@mad/postgres';
import type { Logger } from '@mad/process';
import type { DataKeyRow } from '../db/entities/secret.ts';
import type { ServerRow } from '../db/entities/server.ts';
import { unwrapDataKey, wrapDataKey } from './data-keys.ts';
import type { MasterKeys } from './master-key.ts';
import { sealServerPasswords, serverPassword } from './server-passwords.ts';

/** Keys sealed anew in one pass at most. */
const BATCH = 100;

/**
 * Seals under the newest master key what is still sealed under an older one that is configured, so many at a time: then
 * the older can be removed. What does not open is logged, stays as it is and keeps being counted (metric `sealed_keys`).
 * Returns how many it sealed. Any number of processes may: rows are locked.
 */
export async function rewrapKeys(database: Database, master: MasterKeys, logger: Logger): Promise<number> {
  const older = master.versions.filter((version) => version !== master.newest);
  if (older.length === 0) return 0;
  return database.asSystem(async (tx) => {
    const keys = await tx.query<DataKeyRow>(
      `SELECT org_id, version, wrapped_key, master_key_version FROM provisioner.data_keys
       WHERE master_key_version = ANY ($1) ORDER BY org_id, version LIMIT ${BATCH} FOR UPDATE SKIP LOCKED`,
      [older],
    );
    const servers = await tx.query<ServerRow>(
      `SELECT server_id, name, provisioner_secret, migrator_secret, master_key_version FROM provisioner.database_servers
       WHERE master_key_version = ANY ($1) ORDER BY name LIMIT ${BATCH} FOR UPDATE SKIP LOCKED`,
      [older],
    );
    let done = 0;
    const each = async (about: Record<string, unknown>, seal: () => Promise<void>): Promise<void> => {
      try {
        await seal();
        done += 1;
      } catch (error) {
        // A statement that failed has ended the transaction; only what does not open is passed over.
        if (!(error instanceof DoesNotOpen)) throw error;
        logger.error({ ...about, error: error.cause }, 'a key does not open under its master key');
      }
    };
    for (const row of keys) await each({ org_id: row.org_id }, () => rewrapDataKey(tx, master, row));
    for (const row of servers) await each({ server: row.name }, () => rewrapServer(tx, master, row));
    return done;
  });
}

/** Tampered with, or put in another's place. */
class DoesNotOpen extends Error {
  override readonly name = 'DoesNotOpen';
}

function opened<T>(open: () => T): T {
  try {
    return open();
  } catch (cause) {
    throw new DoesNotOpen('it does not open', { cause });
  }
}

async function rewrapDataKey(tx: Tx, master: MasterKeys, row: DataKeyRow): Promise<void> {
  const wrapped = wrapDataKey(
    master,
    opened(() => unwrapDataKey(master, row)),
  );
  await tx.execute(
    'UPDATE provisioner.data_keys SET wrapped_key = $3, master_key_version = $4 WHERE org_id = $1 AND version = $2',
    [row.org_id, row.version, wrapped.sealed, wrapped.version],
  );
}

async function rewrapServer(tx: Tx, master: MasterKeys, row: ServerRow): Promise<void> {
  const sealed = sealServerPasswords(
    master,
    row.name,
    opened(() => ({
      provisioner: serverPassword(master, row, 'mad_provisioner_admin'),
      migrator: serverPassword(master, row, 'mad_migrator'),
    })),
  );
  await tx.execute(
    `UPDATE provisioner.database_servers SET provisioner_secret = $2, migrator_secret = $3, master_key_version = $4
     WHERE server_id = $1`,
    [row.server_id, sealed.provisioner_secret, sealed.migrator_secret, sealed.master_key_version],
  );
}
