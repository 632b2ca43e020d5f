import { randomBytes } from 'node:crypto';
import { bootstrapTenantServer, clientOptions, withClient } from '@mad/postgres';

const OLDEST_VERSION = 160000;
/** The login whose presence says that a server was prepared before. */
const PROVISIONER = 'mad_provisioner_admin';

/** The passwords of the two logins MAD has on a server, as `mad db server register --passwords` takes them. */
export interface ServerPasswords {
  provisioner_password: string;
  migrator_password: string;
}

/**
 * Prepares a server for organizations' databases: `bootstrapTenantServer` for each tenant schema. A server that was
 * prepared before needs the passwords it has (`known`), since others would shut its provisioner out. `warn` hears what
 * the server should have and has not. Throws where it is too old or its passwords are not given.
 */
export async function prepareServer(
  adminUrl: string,
  options: { schemas: readonly string[]; known?: ServerPasswords; warn: (message: string) => void },
): Promise<ServerPasswords> {
  const { schemas, known, warn } = options;
  const found = await withClient(clientOptions(adminUrl), async (client) => {
    // `reserved_connections` came with 16.
    const { rows } = await client.query<{ version: number; wal: string; reserved: string | null; prepared: boolean }>(
      `SELECT current_setting('server_version_num')::int AS version, current_setting('wal_level') AS wal,
        current_setting('reserved_connections', true) AS reserved,
        EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS prepared`,
      [PROVISIONER],
    );
    return rows[0]!;
  });
  if (found.version < OLDEST_VERSION) throw new Error('the server must be Postgres 16 or later');
  if (found.prepared && known === undefined) {
    throw new Error(
      `the server was prepared before: its passwords are needed (--passwords), others would shut ${PROVISIONER} out`,
    );
  }
  if (found.wal !== 'logical') warn(`wal_level is ${found.wal}: databases cannot be moved away from it online`);
  if (found.reserved === '0')
    warn('reserved_connections is 0: administration waits when tenants hold every connection');
  const passwords = known ?? { provisioner_password: password(), migrator_password: password() };
  for (const schema of schemas) {
    const { provisioner_password: provisionerPassword, migrator_password: migratorPassword } = passwords;
    await bootstrapTenantServer(adminUrl, { provisionerPassword, migratorPassword, schema });
  }
  return passwords;
}

const password = (): string => randomBytes(24).toString('base64url');
