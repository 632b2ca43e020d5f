import { bootstrapServer, bootstrapTenantServer } from '@mad/postgres';
import { createLogger, readEnv, type Env } from '@mad/process';
import { parseServers, readTenantSchemas, type ServerRegistration } from '@mad/provisioner';
import { migrateMetadata, seedAdministrator, type Log } from './databases.ts';
import { METADATA_SERVICES, type Secrets } from './secrets.ts';

/** What must be known to prepare the databases of a system whose services run elsewhere. */
export interface InstallConfig {
  /** A superuser's URL of the metadata server. */
  adminUrl: string;
  /** The migrator's URL of the metadata database: names the database and the password. */
  migrateUrl: string;
  /** Each metadata service's two logins; their passwords are set to those in the URLs. */
  services: Record<(typeof METADATA_SERVICES)[number], { url: string; systemUrl: string }>;
  /** The servers of tenants' databases as the provisioner gets them. */
  servers: readonly ServerRegistration[];
  /** A superuser's URL of each of them, by name. */
  tenantAdminUrls: Readonly<Record<string, string>>;
  /** The tenant schemas whose databases they will hold. */
  tenantSchemas: readonly string[];
  administrator: Secrets['administrator'];
}

const MIN_PASSWORD_LENGTH = 12;

function parseAdminUrls(value: unknown): Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error("must be an object of superusers' URLs by server");
  }
  for (const [name, url] of Object.entries(value)) {
    if (typeof url !== 'string' || !URL.canParse(url)) throw new Error(`the one of ${name} must be a URL`);
  }
  return value as Record<string, string>;
}

/** Reads what `install` needs; the services' own settings are read under their own names. Throws a ConfigError. */
export function readInstallConfig(env: Env): InstallConfig {
  return readEnv(env, (r) => {
    const services = METADATA_SERVICES.map((service) => {
      const prefix = service.toUpperCase();
      return [service, { url: r.url(`${prefix}_DATABASE_URL`), systemUrl: r.url(`${prefix}_SYSTEM_URL`) }] as const;
    });
    // Undefined where they could not be read, which is reported as it is.
    const servers = r.json('PROVISIONER_SERVERS', parseServers) as ServerRegistration[] | undefined;
    const tenantAdminUrls = r.json('INSTALL_TENANT_ADMIN_URLS', parseAdminUrls) as Record<string, string> | undefined;
    for (const { name } of servers ?? []) {
      if (tenantAdminUrls && !Object.hasOwn(tenantAdminUrls, name)) {
        r.problem('INSTALL_TENANT_ADMIN_URLS', `has none for the server ${name} of PROVISIONER_SERVERS`);
      }
    }
    return {
      adminUrl: r.url('INSTALL_ADMIN_URL'),
      migrateUrl: r.url('INSTALL_MIGRATE_URL'),
      services: Object.fromEntries(services) as InstallConfig['services'],
      servers: servers ?? [],
      tenantAdminUrls: tenantAdminUrls ?? {},
      tenantSchemas: Object.keys(readTenantSchemas(r)),
      administrator: {
        email: r.string('IDENTITY_ADMIN_EMAIL', { pattern: /^[^\s@]+@[^\s@]+$/, expected: 'an e-mail address' }),
        password: r.secret('IDENTITY_ADMIN_PASSWORD', { minLength: MIN_PASSWORD_LENGTH }),
      },
    };
  });
}

/**
 * Prepares every database of a system: roles and the metadata database, the tenants' servers, the newest version of
 * each metadata schema, the first administrator. Safe to repeat, and after an upgrade it must be: services never
 * migrate at start. Answers what was new.
 */
export async function install(
  config: InstallConfig,
  log: Log,
): Promise<{ migrations: Record<string, string[]>; administrator: boolean }> {
  const { adminUrl, migrateUrl, services, servers, tenantAdminUrls, tenantSchemas, administrator } = config;
  const logins = Object.entries(services).map(([service, { url, systemUrl }]) => {
    return [service, { app: passwordIn(url), system: passwordIn(systemUrl) }] as const;
  });
  await bootstrapServer(adminUrl, {
    services: Object.fromEntries(logins),
    migratorPassword: passwordIn(migrateUrl),
    database: decodeURIComponent(new URL(migrateUrl).pathname.slice(1)),
  });
  log('the metadata server is prepared');
  for (const { name, provisionerPassword, migratorPassword } of servers) {
    for (const schema of tenantSchemas) {
      await bootstrapTenantServer(tenantAdminUrls[name]!, { provisionerPassword, migratorPassword, schema });
    }
    log(`the server ${name} is prepared for tenants`);
  }
  const migrations = await migrateMetadata(migrateUrl, log);
  return { migrations, administrator: await seedAdministrator(services.identity, administrator) };
}

const passwordIn = (url: string): string => decodeURIComponent(new URL(url).password);

if (import.meta.main) {
  const logger = createLogger('install');
  try {
    const { migrations, administrator } = await install(readInstallConfig(process.env), (message) =>
      logger.info(message),
    );
    const ran = Object.values(migrations).flat().length;
    logger.info({ migrations: ran, administrator_made: administrator }, 'the databases are ready');
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}
