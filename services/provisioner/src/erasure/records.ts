import type { ObjectStore } from '@mad/object-store';
import type { Tx } from '@mad/postgres';
import { ERASURES_FOLDER, type SignedErasure } from './signature.ts';

/** Keeps a signed record in the object store. Where an attempt before kept one, that is the one which counts. */
export async function keepRecord(objects: ObjectStore, signed: SignedErasure): Promise<SignedErasure> {
  const key = `${ERASURES_FOLDER}/${signed.record.erasure_id}`;
  await objects.putIfAbsent(key, Buffer.from(JSON.stringify(signed)));
  return readRecord(objects, key);
}

/** Every record that was kept, by its object's key. */
export async function keptRecords(objects: ObjectStore): Promise<{ key: string; signed: SignedErasure }[]> {
  const kept = [];
  for (const key of await objects.list(ERASURES_FOLDER)) kept.push({ key, signed: await readRecord(objects, key) });
  return kept;
}

async function readRecord(objects: ObjectStore, key: string): Promise<SignedErasure> {
  try {
    return JSON.parse(Buffer.from(await objects.get(key)).toString()) as SignedErasure;
  } catch (cause) {
    throw new Error(`${key} is no record of an erasure`, { cause });
  }
}

/** Keeps it in the table as well, once. */
export async function keepRow(tx: Pick<Tx, 'execute'>, signed: SignedErasure): Promise<void> {
  const { record, hash, key_id: keyId, public_key: publicKey, signature } = signed;
  await tx.execute(
    `INSERT INTO provisioner.erasure_records (erasure_id, org_id, operation_id, record, hash, key_id, public_key,
       signature, erased_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (org_id) DO NOTHING`,
    [
      record.erasure_id,
      record.org_id,
      record.operation_id,
      JSON.stringify(record),
      hash,
      keyId,
      JSON.stringify(publicKey),
      signature,
      record.erased_at,
    ],
  );
}
