import { randomBytes } from 'node:crypto';
import { bootstrapTenantServer, clientOptions } from '@mad/postgres';
import pg from 'pg';

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
  const client = new pg.Client(clientOptions(adminUrl));
  await client.connect();
  try {
    const { rows } = await client
      .query<Record<'version' | 'wal_level' | 'reserved', string> & { prepared: boolean }>(
        `SELECT current_setting('server_version_num') AS version, current_setting('wal_level') AS wal_level,
        current_setting('reserved_connections') AS reserved,
        EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS prepared`,
        [PROVISIONER],
      )
      .catch((error: unknown) => {
        // `reserved_connections` came with 16.
        if ((error as { code?: string }).code === '42704') throw new Error('the server must be Postgres 16 or later');
        throw error;
      });
    const { version, wal_level: walLevel, reserved, prepared } = rows[0]!;
    if (Number(version) < OLDEST_VERSION) throw new Error('the server must be Postgres 16 or later');
    if (prepared && known === undefined) {
      throw new Error(
        `the server was prepared before: its passwords are needed (--passwords), others would shut ${PROVISIONER} out`,
      );
    }
    if (walLevel !== 'logical') warn(`wal_level is ${walLevel}: databases cannot be moved away from it online`);
    if (reserved === '0') warn('reserved_connections is 0: administration waits when tenants hold every connection');
  } finally {
    await client.end();
  }
  const passwords = known ?? { provisioner_password: password(), migrator_password: password() };
  for (const schema of schemas) {
    const { provisioner_password: provisionerPassword, migrator_password: migratorPassword } = passwords;
    await bootstrapTenantServer(adminUrl, { provisionerPassword, migratorPassword, schema });
  }
  return passwords;
}

const password = (): string => randomBytes(24).toString('base64url');
