import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { invalid } from '@mad/rpc';
import type { MasterKeys } from '../secrets/master-key.ts';
import { sealServerPasswords } from '../secrets/server-passwords.ts';

/** How health and statistics call the metadata database, beside the servers. */
export const METADATA = 'metadata';

/** What a server gets when its registration does not say. */
export const SERVER_DEFAULTS = { connectionBudget: 80, maxTenants: 10_000 } as const;

/** A server that was bootstrapped for tenants. */
export interface ServerRegistration {
  name: string;
  host: string;
  port: number;
  region: string;
  /** `verify-full`, `no-verify`, `disable`, or empty: in clear on loopback, verified everywhere else. */
  sslmode: string;
  /** Connections all nodes together may hold to it. */
  connectionBudget: number;
  maxTenants: number;
  provisionerPassword: string;
  migratorPassword: string;
}

/** Registers a server, or brings the one of that name to this address, these limits and passwords. */
export async function upsertServer(tx: Tx, master: MasterKeys, server: ServerRegistration): Promise<void> {
  if (server.name === METADATA) throw invalid('name', 'means the metadata database');
  const passwords = { provisioner: server.provisionerPassword, migrator: server.migratorPassword };
  const sealed = sealServerPasswords(master, server.name, passwords);
  await tx.execute(
    `INSERT INTO provisioner.database_servers (server_id, name, host, port, sslmode, region, connection_budget,
       max_tenants, provisioner_secret, migrator_secret, master_key_version)
     VALUES ($11, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
     ON CONFLICT (name) DO UPDATE SET host = excluded.host, port = excluded.port, sslmode = excluded.sslmode,
       region = excluded.region, connection_budget = excluded.connection_budget, max_tenants = excluded.max_tenants,
       provisioner_secret = excluded.provisioner_secret, migrator_secret = excluded.migrator_secret,
       master_key_version = excluded.master_key_version, updated_at = now()`,
    [
      server.name,
      server.host,
      server.port,
      server.sslmode,
      server.region,
      server.connectionBudget,
      server.maxTenants,
      sealed.provisioner_secret,
      sealed.migrator_secret,
      sealed.master_key_version,
      uuidv7(),
    ],
  );
}
