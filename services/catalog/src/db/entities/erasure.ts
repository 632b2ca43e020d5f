import { EntitySchema } from '@mad/postgres';

/** A row of catalog.erasures. */
export interface ErasureRow {
  org_id: string;
  counts: Record<string, number>;
  begun_at: Date;
}

export const ErasureEntity = new EntitySchema<ErasureRow>({
  name: 'erasures',
  schema: 'catalog',
  columns: {
    org_id: { type: 'uuid', primary: true, primaryKeyConstraintName: 'erasures_pkey' },
    counts: { type: 'jsonb', default: {} },
    begun_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
});
