import { chmod, mkdir, readdir, rename, rm, rmdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { migratorUrl } from './databases.ts';
import { secretSettings, urlOf, type Environment, type PostgresPlace } from './environment.ts';
import { METADATA_SERVICES, newPassword, newSecrets } from './secrets.ts';

const SUPERUSER = 'postgres';
const PORT = 5432;
/** The servers' names in docker-compose.yml. Only containers of one machine's private network reach them: no TLS. */
const METADATA: PostgresPlace = {
  host: 'postgres-metadata',
  port: PORT,
  database: 'mad_metadata',
  sslmode: 'disable',
};
const TENANT_SERVERS = ['postgres-tenants-1', 'postgres-tenants-2'];
/** PgBouncer before it, where the profile is on. The version that Debian has prepares no statements in transaction mode. */
const POOLER = { host: 'pgbouncer', port: 6432 };
/** What organizations ask for that name no region. */
const REGION = 'local';

/**
 * Writes the secrets of a system in containers, one file each, named as docker-compose.yml names them; answers the
 * names. All are random. A folder that holds some is left as it is and the answer is empty: new passwords would lock
 * the services out of databases that exist, and a new master key could read nothing that was sealed before.
 *
 * Only its owner may enter the folder. The files in it are readable, because containers get them one by one, and
 * services that do not run as root must be able to read theirs.
 */
export async function writeComposeSecrets(folder: string): Promise<string[]> {
  if ((await listing(folder)).length > 0) return [];
  const files = Object.entries(await composeSecrets());
  const next = `${folder}.${process.pid}`;
  await mkdir(dirname(folder), { recursive: true });
  await mkdir(next, { mode: 0o700 });
  try {
    for (const [name, text] of files) {
      const path = join(next, name);
      await writeFile(path, text, { flag: 'wx' });
      await chmod(path, 0o444);
    }
    // A version control that looks in here sees nothing.
    await writeFile(join(next, '.gitignore'), '*\n');
    // An empty folder may stand there. The rename is last: either all secrets are there, or none.
    await rmdir(folder).catch(() => undefined);
    await rename(next, folder);
  } catch (error) {
    await rm(next, { recursive: true, force: true });
    throw error;
  }
  return files.map(([name]) => name);
}

/** Every secret by the name of its file: the lower-case name of the setting it is for. */
async function composeSecrets(): Promise<Record<string, string>> {
  const secrets = await newSecrets();
  const tenantServers = TENANT_SERVERS.map((name) => ({ name, superuser: newPassword() }));
  const metadataSuperuser = newPassword();
  const redis = newPassword();
  const superuserUrl = (host: string, password: string) =>
    urlOf({ ...METADATA, host, database: 'postgres' }, SUPERUSER, password);
  const settings: Environment = {
    ...secretSettings(METADATA, secrets),
    PROVISIONER_SERVERS: JSON.stringify(
      TENANT_SERVERS.map((name) => ({
        name,
        host: name,
        port: PORT,
        region: REGION,
        sslmode: METADATA.sslmode,
        provisioner_password: newPassword(),
        migrator_password: newPassword(),
      })),
    ),
    IDENTITY_ADMIN_PASSWORD: secrets.administrator.password,
    INSTALL_ADMIN_URL: superuserUrl(METADATA.host, metadataSuperuser),
    INSTALL_MIGRATE_URL: migratorUrl(METADATA, secrets),
    INSTALL_TENANT_ADMIN_URLS: JSON.stringify(
      Object.fromEntries(tenantServers.map(({ name, superuser }) => [name, superuserUrl(name, superuser)])),
    ),
    REDIS_URL: `redis://:${redis}@redis:6379`,
  };
  const logins = METADATA_SERVICES.flatMap((service) => [`${service}_database_url`, `${service}_system_url`]);
  const direct = (name: string): URL => new URL(settings[name.toUpperCase()]!);
  const passwords = [[METADATA.host, metadataSuperuser], ...tenantServers.map((one) => [one.name, one.superuser])];
  return {
    ...Object.fromEntries(Object.entries(settings).map(([name, value]) => [name.toLowerCase(), value])),
    ...Object.fromEntries(passwords.map(([name, password]) => [`${name!.replaceAll('-', '_')}_password`, password!])),
    ...Object.fromEntries(logins.map((name) => [`${name}_pooled`, pooled(direct(name))])),
    pgbouncer_userlist: logins.map((name) => userlistLine(direct(name))).join(''),
    redis_conf: `requirepass ${redis}\n`,
  };
}

/** The same login through the pooler. */
function pooled(url: URL): string {
  const through = new URL(url);
  through.host = `${POOLER.host}:${POOLER.port}`;
  through.searchParams.set('prepare', 'false');
  return through.href;
}

/** A login as PgBouncer's auth_file has it: with its password, because it must prove it to Postgres itself. */
function userlistLine({ username, password }: URL): string {
  return `"${username}" "${decodeURIComponent(password)}"\n`;
}

async function listing(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
