import { expect, test } from '@jest/globals';
import { generateSigningKey } from '@mad/auth';
import { uuidv7 } from '@mad/process';
import type { ErasureRecord } from '../src/domain/erasure-record.ts';
import { signatureProblems, signErasure } from '../src/erasure/signature.ts';

const record: ErasureRecord = {
  erasure_id: uuidv7(),
  org_id: uuidv7(),
  slug: 'acme',
  operation_id: uuidv7(),
  requested_by: uuidv7(),
  requested_at: '2026-11-25T00:00:00.000Z',
  erased_at: '2026-11-25T00:00:01.000Z',
  databases: [],
  roles: [],
  objects: 1,
  backups: 0,
  keys: 1,
  rows: { catalog: { molecules: 3 } },
};

test('a record that was changed, signed by another, or whose key was exchanged does not hold', async () => {
  const [own, strange] = [await generateSigningKey(), await generateSigningKey()];
  const signed = signErasure(record, own.privateJwk);
  const trusted = [own.publicJwk];
  expect(signatureProblems(signed, trusted)).toEqual([]);
  expect(signatureProblems({ ...signed, record: { ...record, objects: 0 } }, trusted)).toEqual([
    'the record is not what was hashed',
    'the signature is not of this record and this key',
  ]);
  const forged = signErasure(record, strange.privateJwk);
  expect(signatureProblems(forged, trusted)).toEqual([`the key ${forged.key_id} is not among this installation's`]);
  expect(signatureProblems({ ...forged, key_id: signed.key_id }, trusted)).toEqual(['the key is not the one it names']);
  expect(signatureProblems({ ...signed, signature: 'AAAA' }, trusted)).toEqual([
    'the signature is not of this record and this key',
  ]);
});
