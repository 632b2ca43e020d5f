import { chmod, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readCatalogConfig, startCatalog } from '@mad/catalog';
import {
  readBaseBackupPolicy,
  readPostgresMajor,
  startEmbeddedPostgres,
  type EmbeddedPostgres,
} from '@mad/embedded-postgres';
import { readGatewayConfig, startGateway } from '@mad/gateway';
import { readIdentityConfig, startIdentity } from '@mad/identity';
import { clientOptions, withClient } from '@mad/postgres';
import {
  createLogger,
  createMetrics,
  mergedMetricsText,
  openTracing,
  readEnv,
  readTracingConfig,
  type LogLevel,
  type Logger,
  type Metrics,
  type ServiceDeps,
} from '@mad/process';
import {
  readMasterKeys,
  readMetadataBackupPolicy,
  readProvisionerConfig,
  readTenantSchemas,
  startProvisioner,
} from '@mad/provisioner';
import { readResultsConfig, startResults } from '@mad/results';
import { readWorkerConfig, startWorker } from '@mad/worker';
import { BaseBackupKeeper } from './base-backup-keeper.ts';
import { bootstrap, migrateMetadata, migratorUrl, seedAdministrator } from './databases.ts';
import { environmentOf, urlOf, type Environment, type PostgresPlace } from './environment.ts';
import { MetadataBackupKeeper } from './metadata-backup-keeper.ts';
import { choosePorts, type Ports } from './ports.ts';
import { ensureSecrets, type Secrets } from './secrets.ts';

/** The metadata database's name on a local server. */
const METADATA = 'mad_metadata';
/** Says that a folder holds a local system: without it nothing is ever deleted there. */
export const MARKER = 'local-system';

/** How to start. */
export interface LocalOptions {
  /** The folder of the system's data. */
  home: string;
  logger: Logger;
  /** The gateway's port; default 8080, or any when that is taken. */
  gatewayPort?: number;
  /** Take any free ports: for tests. */
  anyPorts?: boolean;
  /** Settings from outside, over the system's own. */
  outer?: Readonly<Record<string, string | undefined>>;
  /** Postgres settings over our own, e.g. fsync off in tests. */
  postgresSettings?: Readonly<Record<string, string>>;
  /** Whether to keep Postgres's log for point-in-time recovery; where absent, as it was. */
  archiveWal?: boolean;
  /** Told what is being done. */
  onPhase?: (phase: string) => void;
}

/** A local system, serving. */
export interface LocalSystem {
  /** The gateway. */
  url: string;
  ports: Ports;
  postgres: { adminUrl: string; port: number; version: string };
  secrets: Secrets;
  environment: Environment;
  /** Stops everything, the way it came up in reverse. */
  close(): Promise<void>;
}

/** A local system whose databases are ready and whose services are not started. */
export interface LocalGround {
  postgres: EmbeddedPostgres;
  place: PostgresPlace;
  version: string;
  secrets: Secrets;
  ports: Ports;
  environment: Environment;
  migrated: Record<string, string[]>;
}

/** Starts Postgres, prepares it and migrates the metadata database. */
export async function prepareGround(options: LocalOptions): Promise<LocalGround> {
  const { home, logger, onPhase = () => undefined } = options;
  await mkdir(home, { recursive: true });
  await writeFile(join(home, MARKER), 'The data of a local MAD system. `mad reset` deletes it.\n');
  const secrets = await ensureSecrets(home);
  onPhase('starting Postgres');
  const log = (message: string) => logger.info(message);
  const dataDir = join(home, 'postgres');
  const major = readEnv(options.outer ?? {}, readPostgresMajor);
  const { archiveWal, postgresSettings: settings = {} } = options;
  const keeping = archiveWal === undefined ? {} : { archiveWal };
  const postgres = await startEmbeddedPostgres({ dataDir, log, major, settings, ...keeping });
  try {
    const place = { host: '127.0.0.1', port: postgres.port, database: METADATA };
    onPhase('preparing the databases');
    const tenantSchemas = readEnv(options.outer ?? {}, readTenantSchemas);
    await bootstrap(postgres.adminUrl, place, secrets, Object.keys(tenantSchemas));
    const migrated = await migrateMetadata(migratorUrl(place, secrets), log);
    const { app, system } = secrets.passwords.services.identity;
    const identity = {
      url: urlOf(place, 'mad_identity', app),
      systemUrl: urlOf(place, 'mad_identity_system', system),
    };
    await seedAdministrator(identity, secrets.administrator);
    const ports = await choosePorts({
      anyPorts: options.anyPorts ?? false,
      ...(options.gatewayPort === undefined ? {} : { gateway: options.gatewayPort }),
    });
    const environment = environmentOf({ home, postgres: place, ports, secrets }, options.outer ?? {});
    return { postgres, place, version: await versionOf(postgres.adminUrl), secrets, ports, environment, migrated };
  } catch (error) {
    await postgres.stop();
    throw error;
  }
}

/** Starts the whole system in this process: services still talk to each other over real sockets. */
export async function startLocal(options: LocalOptions): Promise<LocalSystem> {
  const { logger, onPhase = () => undefined } = options;
  const { postgres, version, secrets, ports, environment } = await prepareGround(options);
  const closers: (() => Promise<void>)[] = [() => postgres.stop()];
  const close = async () => {
    for (const one of closers.splice(0).toReversed()) await one();
  };
  const tracing = openTracing(readTracingConfig(environment), logger);
  closers.push(() => tracing.close());
  const metrics: Metrics[] = [];
  const start = async <S extends { close(): Promise<void> }>(
    service: string,
    begin: (dependencies: ServiceDeps) => Promise<S>,
  ): Promise<S> => {
    onPhase(`starting ${service}`);
    const own = createMetrics(service, { process: service === 'gateway' });
    metrics.push(own);
    const log = createLogger(service, { level: logger.level as LogLevel });
    const running = await begin({ logger: log, metrics: own, tracer: await tracing.tracer(service) });
    closers.push(() => running.close());
    return running;
  };
  try {
    await mkdir(join(options.home, 'objects'), { recursive: true, mode: 0o700 });
    await chmod(join(options.home, 'objects'), 0o700);
    // Results first: the provisioner asks it for the tenant schema. Each waits for its neighbours by itself.
    await start('results', (deps) => startResults(readResultsConfig(environment), deps));
    await start('provisioner', (deps) => startProvisioner(readProvisionerConfig(environment), deps));
    await start('identity', (deps) => startIdentity(readIdentityConfig(environment), deps));
    await start('catalog', (deps) => startCatalog(readCatalogConfig(environment), deps));
    await start('worker', (deps) => startWorker(readWorkerConfig(environment), deps));
    const gateway = await start('gateway', (deps) =>
      startGateway(readGatewayConfig(environment), { ...deps, metricsText: () => mergedMetricsText(metrics) }),
    );
    ports.gateway = gateway.port;
    const own = createMetrics('local');
    metrics.push(own);
    const archives = new MetadataBackupKeeper({
      ...readEnv(environment, readMetadataBackupPolicy),
      place: {
        adminUrl: postgres.adminUrl,
        database: METADATA,
        master: readEnv(environment, readMasterKeys),
        objectStoreUrl: environment['OBJECT_STORE_URL']!,
      },
      logger,
      metrics: own,
    });
    closers.push(() => archives.close());
    if (await keepsLog(postgres.adminUrl)) {
      const keeper = new BaseBackupKeeper({
        ...readEnv(options.outer ?? {}, readBaseBackupPolicy),
        dataDir: join(options.home, 'postgres'),
        adminUrl: postgres.adminUrl,
        logger,
        metrics: own,
      });
      closers.push(() => keeper.close());
    }
    const { adminUrl, port } = postgres;
    return {
      url: `http://127.0.0.1:${gateway.port}`,
      ports,
      postgres: { adminUrl, port, version },
      secrets,
      environment,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function versionOf(adminUrl: string): Promise<string> {
  return settingOf(adminUrl, 'server_version');
}

/** Whether the server keeps its log for point-in-time recovery. */
async function keepsLog(adminUrl: string): Promise<boolean> {
  return (await settingOf(adminUrl, 'archive_mode')) === 'on';
}

async function settingOf(adminUrl: string, name: string): Promise<string> {
  return withClient(clientOptions(adminUrl), async (client) => {
    const { rows } = await client.query<{ value: string }>('SELECT current_setting($1) AS value', [name]);
    return rows[0]!.value;
  });
}
