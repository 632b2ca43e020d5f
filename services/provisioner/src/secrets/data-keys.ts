import { randomBytes } from 'node:crypto';
import type { Tx } from '@mad/postgres';
import type { DataKeyRow } from '../db/entities/secret.ts';
import { open, seal, type MasterKeys, type Sealed } from './master-key.ts';

const KEY_BYTES = 32;
const PASSWORD_BYTES = 32;

/** An organization's key, in clear. Never stored, never logged. */
export interface DataKey {
  orgId: string;
  version: number;
  key: Buffer;
}

const keyAad = (orgId: string, version: number): string => `mad data key ${orgId} ${version}`;
const passwordAad = (key: DataKey, schema: string, role: string): string =>
  `mad tenant ${key.orgId} ${schema} ${role} ${key.version}`;

/** The organization's newest data key, made when it has none. */
export async function ensureDataKey(
  tx: Pick<Tx, 'query' | 'execute'>,
  master: MasterKeys,
  orgId: string,
): Promise<DataKey> {
  const wrapped = wrapDataKey(master, { orgId, version: 1, key: randomBytes(KEY_BYTES) });
  await tx.execute(
    `INSERT INTO provisioner.data_keys (org_id, version, wrapped_key, master_key_version)
     SELECT $1, 1, $2, $3 WHERE NOT EXISTS (SELECT 1 FROM provisioner.data_keys WHERE org_id = $1)
     ON CONFLICT DO NOTHING`,
    [orgId, wrapped.sealed, wrapped.version],
  );
  const [row] = await tx.query<DataKeyRow>(
    `SELECT org_id, version, wrapped_key, master_key_version FROM provisioner.data_keys
     WHERE org_id = $1 ORDER BY version DESC LIMIT 1`,
    [orgId],
  );
  if (row === undefined) throw new Error('the data key vanished');
  return unwrapDataKey(master, row);
}

/** The key as `data_keys` keeps it, under the newest master key. */
export function wrapDataKey(master: MasterKeys, { orgId, version, key }: DataKey): Sealed {
  return master.seal(key, keyAad(orgId, version));
}

/** Throws when the key was tampered with, or its master key is not configured. */
export function unwrapDataKey(
  master: MasterKeys,
  row: Pick<DataKeyRow, 'org_id' | 'version' | 'wrapped_key' | 'master_key_version'>,
): DataKey {
  const sealed = { sealed: row.wrapped_key, version: row.master_key_version };
  try {
    return { orgId: row.org_id, version: row.version, key: master.open(sealed, keyAad(row.org_id, row.version)) };
  } catch (cause) {
    const message = `the data key of ${row.org_id} does not open: the master key is another one, or the row was changed`;
    throw new Error(message, { cause });
  }
}

/** The organization's data key of a version; undefined when it was destroyed. Throws like `unwrapDataKey`. */
export async function findDataKey(
  tx: Tx,
  master: MasterKeys,
  orgId: string,
  version: number,
): Promise<DataKey | undefined> {
  const [row] = await tx.query<DataKeyRow>(
    `SELECT org_id, version, wrapped_key, master_key_version FROM provisioner.data_keys
     WHERE org_id = $1 AND version = $2`,
    [orgId, version],
  );
  return row === undefined ? undefined : unwrapDataKey(master, row);
}

/** A new random password of 32 bytes, printable. */
export function newPassword(): string {
  return randomBytes(PASSWORD_BYTES).toString('base64url');
}

/** Seals the password of a tenant's login under the organization's key. */
export function sealPassword(key: DataKey, schema: string, role: string, password: string): Buffer {
  return seal(key.key, Buffer.from(password), passwordAad(key, schema, role));
}

/** The password of a tenant's login. Throws when the row was tampered with or belongs to another login. */
export function openPassword(key: DataKey, schema: string, role: string, secret: Uint8Array): string {
  return open(key.key, secret, passwordAad(key, schema, role)).toString();
}
