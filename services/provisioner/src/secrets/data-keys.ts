import { hkdfSync, randomBytes } from 'node:crypto';
import type { Statements, Tx } from '@mad/postgres';
import type { DataKeyRow } from '../db/entities/secret.ts';
import { open, seal } from './aead.ts';
import { MasterKeyError, type MasterKeys, type Sealed } from './master-keys.ts';

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

const COLUMNS = 'org_id, version, wrapped_key, master_key_version';

/** A data key that is ready to be used, and not yet noted when it is new. */
export interface PreparedKey {
  key: DataKey;
  /** As `data_keys` is to keep it; undefined when it is there. */
  fresh?: Sealed;
}

/**
 * The organization's newest data key, or a new one for `noteDataKey`. A key service may be asked: call it before a
 * transaction with locks, not inside. `read` runs one statement.
 */
export async function prepareDataKey(
  read: <T>(fn: (tx: Statements) => Promise<T>) => Promise<T>,
  master: MasterKeys,
  orgId: string,
): Promise<PreparedKey> {
  const row = await read((tx) => newest(tx, orgId));
  if (row !== undefined) return { key: await unwrapDataKey(master, row) };
  const key = { orgId, version: 1, key: randomBytes(KEY_BYTES) };
  return { key, fresh: await wrapDataKey(master, key) };
}

/** Notes a prepared key if it is new. Returns the organization's: another one when somebody else was faster. */
export async function noteDataKey(tx: Statements, master: MasterKeys, { key, fresh }: PreparedKey): Promise<DataKey> {
  if (fresh === undefined) return key;
  const noted = await tx.execute(
    `INSERT INTO provisioner.data_keys (org_id, version, wrapped_key, master_key_version)
     SELECT $1, 1, $2, $3 WHERE NOT EXISTS (SELECT 1 FROM provisioner.data_keys WHERE org_id = $1)
     ON CONFLICT DO NOTHING`,
    [key.orgId, fresh.sealed, fresh.version],
  );
  if (noted === 1) return key;
  const row = await newest(tx, key.orgId);
  if (row === undefined) throw new Error('the data key vanished');
  return unwrapDataKey(master, row);
}

async function newest(tx: Statements, orgId: string): Promise<DataKeyRow | undefined> {
  const [row] = await tx.query<DataKeyRow>(
    `SELECT ${COLUMNS} FROM provisioner.data_keys WHERE org_id = $1 ORDER BY version DESC LIMIT 1`,
    [orgId],
  );
  return row;
}

/** The key as `data_keys` keeps it, under the newest master key. */
export function wrapDataKey(master: MasterKeys, { orgId, version, key }: DataKey): Promise<Sealed> {
  return master.seal(key, keyAad(orgId, version));
}

/** Throws when the key was tampered with or its master key is gone, and UNAVAILABLE when a key service does not answer. */
export async function unwrapDataKey(
  master: MasterKeys,
  row: Pick<DataKeyRow, 'org_id' | 'version' | 'wrapped_key' | 'master_key_version'>,
): Promise<DataKey> {
  const sealed = { sealed: row.wrapped_key, version: row.master_key_version };
  try {
    const key = await master.open(sealed, keyAad(row.org_id, row.version));
    return { orgId: row.org_id, version: row.version, key };
  } catch (cause) {
    if (!(cause instanceof MasterKeyError)) throw cause;
    const message = `the data key of ${row.org_id} does not open: the master key is another one, or the row was changed`;
    throw new MasterKeyError(cause.fault, message, { cause });
  }
}

/** The organization's data key of a version, still wrapped; undefined when it was destroyed. */
export async function findDataKey(tx: Tx, orgId: string, version: number): Promise<DataKeyRow | undefined> {
  const [row] = await tx.query<DataKeyRow>(
    `SELECT ${COLUMNS} FROM provisioner.data_keys WHERE org_id = $1 AND version = $2`,
    [orgId, version],
  );
  return row;
}

/** All of an organization's data keys, still wrapped, the newest first. */
export function findDataKeys(tx: Tx, orgId: string): Promise<DataKeyRow[]> {
  return tx.query<DataKeyRow>(`SELECT ${COLUMNS} FROM provisioner.data_keys WHERE org_id = $1 ORDER BY version DESC`, [
    orgId,
  ]);
}

/** The key for services that keep objects: derived (HKDF, RFC 5869), so that it opens nothing else. */
export function objectKeyOf({ orgId, version, key }: DataKey): Buffer {
  return Buffer.from(hkdfSync('sha256', key, '', `mad objects ${orgId} ${version}`, KEY_BYTES));
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
