import { bootstrapServer, bootstrapTenantServer } from '@mad/postgres';
import { CLUSTER_VARIABLE, passwordOf, SERVICES, type ClusterState } from '../cluster.ts';
import { startServer } from './server.ts';
import { keep } from './running.ts';

/** Once per run, before any test file: one Postgres server with every role, told to the workers by environment. */
export default async function globalSetup(): Promise<void> {
  const server = await startServer(process.env, (message) => process.stderr.write(`${message}\n`));
  keep(server);
  const { adminUrl } = server;
  const migratorPassword = passwordOf(adminUrl, 'mad_migrator');
  await bootstrapServer(adminUrl, {
    services: Object.fromEntries(
      SERVICES.map((service) => [
        service,
        { app: passwordOf(adminUrl, `mad_${service}`), system: passwordOf(adminUrl, `mad_${service}_system`) },
      ]),
    ),
    migratorPassword,
    database: null,
  });
  await bootstrapTenantServer(adminUrl, {
    provisionerPassword: passwordOf(adminUrl, 'mad_provisioner_admin'),
    migratorPassword,
    schema: 'results',
  });
  const state: ClusterState = { adminUrl };
  process.env[CLUSTER_VARIABLE] = JSON.stringify(state);
}
