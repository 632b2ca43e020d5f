import type { Database, Tx } from '@mad/postgres';
import type { Logger } from '@mad/process';
import type { DataKeyRow } from '../db/entities/secret.ts';
import type { ServerRow } from '../db/entities/server.ts';
import { unwrapDataKey, wrapDataKey } from './data-keys.ts';
import { MasterKeyError, sealedBySql, type MasterKeys } from './master-keys.ts';
import { sealServerPasswords, serverPassword } from './server-passwords.ts';

/** Keys sealed anew in one pass at most. */
const BATCH = 100;

type Keep = (tx: Tx) => Promise<number>;

/**
 * Seals under the newest master key what is still sealed under an older one that opens, so many at a time: then the older
 * can be removed. What does not open is logged, stays as it is and keeps being counted (metric `sealed_keys`). Returns how
 * many it sealed. Any number of processes may: a row that changed meanwhile is left alone.
 */
export async function rewrapKeys(database: Database, master: MasterKeys, logger: Logger): Promise<number> {
  const { older } = await master.standing();
  if (older.length === 0) return 0;
  // Read without a lock, since a key service may be slow; in any order, so that processes seldom do the same and what
  // does not open never keeps the others from their turn.
  const [keys, servers] = await database.asSystem(async (tx) => [
    await tx.query<DataKeyRow>(
      `SELECT org_id, version, wrapped_key, master_key_version FROM provisioner.data_keys
       WHERE ${sealedBySql('wrapped_key')} = ANY ($1) ORDER BY random() LIMIT ${BATCH}`,
      [older],
    ),
    await tx.query<ServerRow>(
      `SELECT server_id, name, provisioner_secret, migrator_secret, master_key_version FROM provisioner.database_servers
       WHERE ${sealedBySql('provisioner_secret')} = ANY ($1) ORDER BY random() LIMIT ${BATCH}`,
      [older],
    ),
  ]);
  let done = 0;
  const each = async (about: Record<string, unknown>, sealed: () => Promise<Keep>): Promise<void> => {
    try {
      const keep = await sealed();
      done += await database.asSystem(keep);
    } catch (error) {
      if (!(error instanceof MasterKeyError)) throw error;
      logger.error({ ...about, error }, 'a key does not open under its master key');
    }
  };
  for (const row of keys) await each({ org_id: row.org_id }, () => rewrapDataKey(master, row));
  for (const row of servers) await each({ server: row.name }, () => rewrapServer(master, row));
  return done;
}

async function rewrapDataKey(master: MasterKeys, row: DataKeyRow): Promise<Keep> {
  const wrapped = await wrapDataKey(master, await unwrapDataKey(master, row));
  return (tx) =>
    tx.execute(
      `UPDATE provisioner.data_keys SET wrapped_key = $4, master_key_version = $5
       WHERE org_id = $1 AND version = $2 AND wrapped_key = $3`,
      [row.org_id, row.version, row.wrapped_key, wrapped.sealed, wrapped.version],
    );
}

async function rewrapServer(master: MasterKeys, row: ServerRow): Promise<Keep> {
  const sealed = await sealServerPasswords(master, row.name, {
    provisioner: await serverPassword(master, row, 'mad_provisioner_admin'),
    migrator: await serverPassword(master, row, 'mad_migrator'),
  });
  return (tx) =>
    tx.execute(
      `UPDATE provisioner.database_servers SET provisioner_secret = $3, migrator_secret = $4, master_key_version = $5
       WHERE server_id = $1 AND provisioner_secret = $2`,
      [
        row.server_id,
        row.provisioner_secret,
        sealed.provisioner_secret,
        sealed.migrator_secret,
        sealed.master_key_version,
      ],
    );
}
