import { EntitySchema } from '@mad/postgres';

/** A row of provisioner.server_standbys. */
export interface StandbyRow {
  server_id: string;
  host: string;
  port: number;
  sslmode: string;
}

export const StandbyEntity = new EntitySchema<StandbyRow>({
  name: 'server_standbys',
  schema: 'provisioner',
  columns: {
    server_id: { type: 'uuid', primary: true },
    host: { type: 'text', primary: true },
    port: { type: 'integer', primary: true },
    sslmode: { type: 'text', default: '' },
  },
});
