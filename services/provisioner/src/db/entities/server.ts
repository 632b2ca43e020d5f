import { EntitySchema } from '@mad/postgres';

/** A row of provisioner.database_servers. */
export interface ServerRow {
  server_id: string;
  name: string;
  host: string;
  port: number;
  sslmode: string;
  region: string;
  connection_budget: number;
  max_tenants: number;
  draining: boolean;
  labels: Record<string, string>;
  reserved_connections: number;
  provisioner_secret: Buffer;
  migrator_secret: Buffer;
  master_key_version: number;
  /** Null before the first look. */
  system_identifier: string | null;
  /** The newest its primary was seen on; 0 before the first look. */
  timeline: number;
  promoted_at: Date | null;
  created_at: Date;
  updated_at: Date;
}

/** Every column of a ServerRow, for queries. */
export const SERVER_COLUMNS = `server_id, name, host, port, sslmode, region, connection_budget, max_tenants, draining,
  provisioner_secret, migrator_secret, master_key_version, system_identifier, timeline, promoted_at, created_at, updated_at`;

export const ServerEntity = new EntitySchema<ServerRow>({
  name: 'database_servers',
  schema: 'provisioner',
  columns: {
    server_id: { type: 'uuid', primary: true, default: () => 'gen_random_uuid()' },
    name: { type: 'text' },
    host: { type: 'text' },
    port: { type: 'integer' },
    sslmode: { type: 'text', default: '' },
    region: { type: 'text' },
    connection_budget: { type: 'integer' },
    max_tenants: { type: 'integer' },
    draining: { type: 'boolean', default: false },
    labels: { type: 'jsonb', default: {} },
    reserved_connections: { type: 'integer', default: 5 },
    provisioner_secret: { type: 'bytea' },
    migrator_secret: { type: 'bytea' },
    master_key_version: { type: 'integer' },
    system_identifier: { type: 'text', nullable: true },
    timeline: { type: 'integer', default: 0 },
    promoted_at: { type: 'timestamptz', precision: 3, nullable: true },
    created_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
    updated_at: { type: 'timestamptz', precision: 3, default: () => 'now()' },
  },
  uniques: [{ name: 'database_servers_name_key', columns: ['name'] }],
});
