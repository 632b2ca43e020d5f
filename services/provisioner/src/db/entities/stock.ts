import { EntitySchema } from '@mad/postgres';

/** A row of provisioner.tenant_stock. */
export interface StockRow {
  stock_id: string;
  server_id: string;
  schema: string;
  database_name: string;
  template: string;
  state: 'making' | 'ready' | 'claimed';
  org_id: string | null;
  created_at: Date;
}

export const StockEntity = new EntitySchema<StockRow>({
  name: 'tenant_stock',
  schema: 'provisioner',
  columns: {
    stock_id: { type: 'uuid', primary: true, default: () => 'gen_random_uuid()' },
    server_id: { type: 'uuid' },
    schema: { type: 'text' },
    database_name: { type: 'text' },
    template: { type: 'text' },
    state: { type: 'text', default: 'making' },
    org_id: { type: 'uuid', nullable: true },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
  uniques: [{ name: 'tenant_stock_database_name_key', columns: ['server_id', 'database_name'] }],
});
