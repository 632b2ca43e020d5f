import type { Tx } from '@mad/postgres';
import { uuidv7 } from '@mad/process';
import { invalid } from '@mad/rpc';
import type { MasterKeys } from '../secrets/master-keys.ts';
import { sealServerPasswords, type ServerSecrets } from '../secrets/server-passwords.ts';

/** How health and statistics call the metadata database, beside the servers. */
export const METADATA = 'metadata';

/** What a server gets when its registration does not say. */
export const SERVER_DEFAULTS = { connectionBudget: 80, maxTenants: 10_000, reservedConnections: 5 } as const;

/** The configuration still names the primary before; a standby took over since. */
const TAKEN_OVER = `(NOT $14 AND EXISTS (SELECT FROM provisioner.server_standbys b
         WHERE b.server_id = s.server_id AND b.host = excluded.host AND b.port = excluded.port))`;
/** An operator says where it is now: whatever answers there is the primary. */
const ELSEWHERE = `($14 AND (s.host, s.port) <> (excluded.host, excluded.port))`;

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
  /** Connections beside the budget, for administration and migrations; where not given, as it is or the default. */
  reservedConnections?: number;
  labels?: Readonly<Record<string, string>>;
  provisionerPassword: string;
  migratorPassword: string;
}

/** Seals the passwords a server is registered with. A key service may be asked. */
export function sealRegistration(
  master: MasterKeys,
  { name, provisionerPassword: provisioner, migratorPassword: migrator }: ServerRegistration,
): Promise<ServerSecrets> {
  return sealServerPasswords(master, name, { provisioner, migrator });
}

/**
 * Registers a server, or brings the one of that name to this address and these passwords; `limits` to these limits and this
 * region as well. The configuration does so without: what an operator set since stays over every restart.
 */
export async function upsertServer(
  tx: Tx,
  server: ServerRegistration,
  secrets: ServerSecrets,
  { limits }: { limits: boolean } = { limits: true },
): Promise<void> {
  if (server.name === METADATA) throw invalid('name', 'means the metadata database');
  await tx.execute(
    `INSERT INTO provisioner.database_servers AS s (server_id, name, host, port, sslmode, region, connection_budget,
       max_tenants, provisioner_secret, migrator_secret, master_key_version, reserved_connections, labels)
     VALUES ($11, $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, coalesce($12, ${SERVER_DEFAULTS.reservedConnections}),
       coalesce($13, '{}'::jsonb))
     ON CONFLICT (name) DO UPDATE SET
       host = CASE WHEN ${TAKEN_OVER} THEN s.host ELSE excluded.host END,
       port = CASE WHEN ${TAKEN_OVER} THEN s.port ELSE excluded.port END,
       sslmode = CASE WHEN ${TAKEN_OVER} THEN s.sslmode ELSE excluded.sslmode END,
       system_identifier = CASE WHEN ${ELSEWHERE} THEN NULL ELSE s.system_identifier END,
       timeline = CASE WHEN ${ELSEWHERE} THEN 0 ELSE s.timeline END,
       region = CASE WHEN $14 THEN excluded.region ELSE s.region END,
       connection_budget = CASE WHEN $14 THEN excluded.connection_budget ELSE s.connection_budget END,
       max_tenants = CASE WHEN $14 THEN excluded.max_tenants ELSE s.max_tenants END,
       reserved_connections = coalesce($12, s.reserved_connections), labels = coalesce($13, s.labels),
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
      secrets.provisioner_secret,
      secrets.migrator_secret,
      secrets.master_key_version,
      uuidv7(),
      server.reservedConnections ?? null,
      server.labels === undefined ? null : JSON.stringify(server.labels),
      limits,
    ],
  );
}
