import { EntitySchema } from '@mad/postgres';

/** A row of provisioner.connection_shares. */
export interface ConnectionShareRow {
  server_id: string;
  node: string;
  place: string;
  share: number;
  granted: number;
  wanted: number;
  generation: number;
  expires_at: Date;
}

export const ConnectionShareEntity = new EntitySchema<ConnectionShareRow>({
  name: 'connection_shares',
  schema: 'provisioner',
  columns: {
    server_id: { type: 'uuid', primary: true },
    node: { type: 'text', primary: true },
    place: { type: 'text', default: '' },
    share: { type: 'integer' },
    granted: { type: 'integer' },
    wanted: { type: 'integer' },
    generation: { type: 'bigint', default: 1 },
    expires_at: { type: 'timestamptz', precision: 3 },
  },
});
