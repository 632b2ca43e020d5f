import type { Database, Tx } from '@mad/postgres';
import { SECOND_MS } from '@mad/process';
import { generateSigningKey } from '@mad/auth';
import type { JWK } from 'jose';
import { appendAudit } from '../audit/append.ts';
import { auditEvent } from '../audit/record.ts';
import type { SigningKeyRow } from '../db/entities/credential.ts';
import { PLATFORM_ORG_ID } from '../domain/audit-chain.ts';
import { planRotation, signingKeyAt, type KeyAge } from '../domain/key-rotation.ts';
import type { MasterKey } from '../secrets/master-key.ts';

/** Keys are read anew after this long: another node may have rotated them. */
const READ_AGAIN_MS = 30 * SECOND_MS;

/** A key that signs. */
export interface SigningKey {
  kid: string;
  privateJwk: JWK;
}

/** The keys of access tokens. */
export interface SigningKeys {
  /** The key to sign with now. */
  current(): Promise<SigningKey>;
  /** Every key a valid token may name: public halves, with kid, alg and use. */
  publicKeys(): Promise<JWK[]>;
  /** Makes a key when there is none or the newest is old, retires the old, removes what verifies nothing any more. */
  rotate(options?: { force?: boolean }): Promise<void>;
}

interface LoadedKey extends KeyAge {
  publicKey: JWK;
  sealed: Buffer;
}

async function loadKeys(tx: Tx): Promise<LoadedKey[]> {
  const rows = await tx.query<SigningKeyRow>(
    'SELECT kid, alg, public_key, private_key, state, not_before, retire_at, created_at FROM identity.signing_keys',
  );
  return rows.map((row) => ({
    kid: row.kid,
    notBefore: row.not_before,
    retireAt: row.retire_at,
    publicKey: { ...row.public_key, kid: row.kid, alg: row.alg, use: 'sig' },
    sealed: row.private_key,
  }));
}

async function applyRotation(tx: Tx, master: MasterKey, now: Date, force: boolean): Promise<void> {
  // One rotation at a time over all nodes: two would make two keys.
  await tx.query(`SELECT pg_advisory_xact_lock(hashtext('mad.identity.signing_keys'))`);
  const plan = planRotation(await loadKeys(tx), now, { force });
  for (const { kid, at } of plan.retire) {
    await tx.execute(`UPDATE identity.signing_keys SET state = 'retiring', retire_at = $2 WHERE kid = $1`, [kid, at]);
  }
  for (const kid of plan.remove) await tx.execute('DELETE FROM identity.signing_keys WHERE kid = $1', [kid]);
  if (plan.create === undefined) return;
  const { kid, privateJwk, publicJwk } = await generateSigningKey();
  await tx.execute(
    `INSERT INTO identity.signing_keys (kid, alg, public_key, private_key, state, not_before)
     VALUES ($1, 'ES256', $2, $3, 'active', $4)`,
    [kid, JSON.stringify(publicJwk), master.seal(Buffer.from(JSON.stringify(privateJwk)), kid), plan.create.notBefore],
  );
  const fact = { action: 'signing_keys.rotate', entityType: 'signing_key', entityId: kid };
  await appendAudit(tx, PLATFORM_ORG_ID, [auditEvent(PLATFORM_ORG_ID, fact, { actorKind: 'service', userId: null })]);
}

/** The keys in the database, private halves sealed under the master key. */
export function signingKeys(database: Database, master: MasterKey): SigningKeys {
  let loaded: { keys: LoadedKey[]; at: number } | undefined;
  let opened: SigningKey | undefined;

  async function read(): Promise<LoadedKey[]> {
    if (loaded === undefined || Date.now() - loaded.at > READ_AGAIN_MS) {
      loaded = { keys: await database.asSystem(loadKeys), at: Date.now() };
    }
    return loaded.keys;
  }

  return {
    async current() {
      const key = signingKeyAt(await read(), new Date());
      if (key === undefined) throw new Error('there is no signing key: rotate() was never run');
      if (opened?.kid !== key.kid) {
        opened = { kid: key.kid, privateJwk: JSON.parse(master.open(key.sealed, key.kid).toString()) as JWK };
      }
      return opened;
    },
    async publicKeys() {
      const now = new Date();
      return (await read()).filter(({ retireAt }) => retireAt === null || retireAt > now).map((key) => key.publicKey);
    },
    async rotate({ force = false } = {}) {
      await database.asSystem((tx) => applyRotation(tx, master, new Date(), force));
      loaded = undefined;
    },
  };
}
