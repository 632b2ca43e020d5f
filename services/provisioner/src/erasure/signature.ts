import { createHash, createPrivateKey, createPublicKey, sign, verify, type JsonWebKey } from 'node:crypto';
import type { JsonObject } from '@bufbuild/protobuf';
import { recordText, type ErasureRecord } from '../domain/erasure-record.ts';

/** Where the signed records are kept beside the database: a restore of older metadata finds them there. */
export const ERASURES_FOLDER = 'erasures';

/** A record, with what proves it. */
export interface SignedErasure {
  record: ErasureRecord;
  /** SHA-256 of the record's text, hex. */
  hash: string;
  /** RFC 7638 thumbprint of the key. */
  key_id: string;
  public_key: JsonObject;
  /** ES256 over the text: r and s, base64url. */
  signature: string;
}

/** Only the public members that say which key it is. */
function publicHalf({ crv, kty, x, y }: JsonWebKey): JsonObject {
  return { crv: crv!, kty: kty!, x: x!, y: y! };
}

export function thumbprint(jwk: JsonWebKey): string {
  return createHash('sha256')
    .update(JSON.stringify(publicHalf(jwk)))
    .digest('base64url');
}

/** Signs a record with a service's own key. */
export function signErasure(record: ErasureRecord, privateJwk: JsonWebKey): SignedErasure {
  const text = recordText(record);
  const key = createPrivateKey({ key: privateJwk, format: 'jwk' });
  return {
    record,
    hash: createHash('sha256').update(text).digest('hex'),
    key_id: thumbprint(privateJwk),
    public_key: publicHalf(privateJwk),
    signature: sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url'),
  };
}

/** What does not hold of a signed record, in words; `trusted`: public keys that may sign. Empty when all is well. */
export function signatureProblems(signed: SignedErasure, trusted: readonly JsonWebKey[]): string[] {
  const problems: string[] = [];
  const text = recordText(signed.record);
  if (createHash('sha256').update(text).digest('hex') !== signed.hash)
    problems.push('the record is not what was hashed');
  if (!isSigned(signed, text)) problems.push('the signature is not of this record and this key');
  if (thumbprint(signed.public_key) !== signed.key_id) problems.push('the key is not the one it names');
  if (!trusted.some((jwk) => thumbprint(jwk) === signed.key_id)) {
    problems.push(`the key ${signed.key_id} is not among this installation's`);
  }
  return problems;
}

function isSigned({ public_key: jwk, signature }: SignedErasure, text: string): boolean {
  try {
    const key = createPublicKey({ key: jwk, format: 'jwk' });
    return verify('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url'));
  } catch {
    return false;
  }
}
