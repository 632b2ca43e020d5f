import type { JsonObject } from '@bufbuild/protobuf';
import { EntitySchema } from '@mad/postgres';
import type { ErasureRecord } from '../../domain/erasure-record.ts';

/** A row of provisioner.erasure_records. */
export interface ErasureRow {
  erasure_id: string;
  org_id: string;
  operation_id: string;
  record: ErasureRecord;
  hash: string;
  key_id: string;
  public_key: JsonObject;
  signature: string;
  erased_at: Date;
}

/** Every column of an ErasureRow, for queries. */
export const ERASURE_COLUMNS = `erasure_id, org_id, operation_id, record, hash, key_id, public_key, signature, erased_at`;

export const ErasureEntity = new EntitySchema<ErasureRow>({
  name: 'erasure_records',
  schema: 'provisioner',
  columns: {
    erasure_id: { type: 'uuid', primary: true },
    org_id: { type: 'uuid' },
    operation_id: { type: 'uuid' },
    record: { type: 'jsonb' },
    hash: { type: 'text' },
    key_id: { type: 'text' },
    public_key: { type: 'jsonb' },
    signature: { type: 'text' },
    erased_at: { type: 'timestamptz', precision: 3 },
  },
  uniques: [{ name: 'erasure_records_org_id_key', columns: ['org_id'] }],
});
