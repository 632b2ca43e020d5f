// The services and their Postgres server as a process of their own: the tables, roles and settings of `make up`, without
// the worker and the gateway, which no row needs and whose polling would be noise. Arguments are settings: NAME=value.
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { readCatalogConfig, startCatalog } from '@mad/catalog';
import { removeEmbeddedPostgres } from '@mad/embedded-postgres';
import { readIdentityConfig, startIdentity } from '@mad/identity';
import { createLogger, createMetrics } from '@mad/process';
import { readProvisionerConfig, startProvisioner } from '@mad/provisioner';
import { readResultsConfig, startResults } from '@mad/results';
import { prepareGround } from '../../apps/local/src/start.ts';
import { leaveSignalsToParent, serveProgram } from '../child.ts';
import type { SystemReady, SystemSettings } from '../system.ts';

leaveSignalsToParent();
const home = await mkdtemp(join(tmpdir(), 'mad-bench-'));
const logger = createLogger('bench');
const closers: (() => Promise<void>)[] = [];

async function close(): Promise<void> {
  for (const one of closers.splice(0).toReversed()) await one();
  await removeEmbeddedPostgres(join(home, 'postgres'));
  await rm(home, { recursive: true, force: true });
}

async function start(): Promise<SystemReady> {
  const { services, postgres: postgresSettings = {} } = JSON.parse(process.argv[2]!) as SystemSettings;
  const outer = {
    CATALOG_CHEMISTRY_WORKERS: String(availableParallelism()),
    // Clones in stock are a row of their own, and so is a backup: none is made by the clock beside another row.
    PROVISIONER_STOCK_SIZE: '0',
    PROVISIONER_BACKUP_EVERY_HOURS: '0',
    ...services,
  };
  const ground = await prepareGround({ home, logger, anyPorts: true, outer, postgresSettings });
  closers.push(() => ground.postgres.stop());
  await mkdir(join(home, 'objects'), { recursive: true });
  const { environment } = ground;
  const deps = (service: string) => ({ logger: logger.child({ service }), metrics: createMetrics(service) });
  // Results first: the provisioner asks it for the tenant schema.
  const results = await startResults(readResultsConfig(environment), deps('results'));
  closers.push(() => results.close());
  const provisioner = await startProvisioner(readProvisionerConfig(environment), deps('provisioner'));
  closers.push(() => provisioner.close());
  const identity = await startIdentity(readIdentityConfig(environment), deps('identity'));
  closers.push(() => identity.close());
  const catalog = await startCatalog(readCatalogConfig(environment), deps('catalog'));
  closers.push(() => catalog.close());
  return {
    adminUrl: ground.postgres.adminUrl,
    place: ground.place,
    version: ground.version,
    secrets: ground.secrets,
    environment,
    ports: { identity: identity.port, catalog: catalog.port, provisioner: provisioner.port, results: results.port },
  };
}

try {
  serveProgram(await start(), close);
} catch (error) {
  console.error(error);
  await close();
  process.exit(1);
}
