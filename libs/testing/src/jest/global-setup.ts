import { bootstrapServer, bootstrapTenantServer } from '@mad/postgres';
import { CLUSTER_VARIABLE, passwordOf, SERVICES, type ClusterState } from '../cluster.ts';
import { startPooler } from './pooler.ts';
import { keep } from './running.ts';
import { startServer } from './server.ts';

/**
 * Once per run, before any test file: one Postgres server with every role, told to the workers by environment. With
 * MAD_TEST_POOLER=1 also PgBouncer before it.
 */
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
  if (process.env['MAD_TEST_POOLER'] === '1') {
    const { hostname, port } = new URL(adminUrl);
    const roles = SERVICES.flatMap((service) => [`mad_${service}`, `mad_${service}_system`]);
    const logins = Object.fromEntries(roles.map((role) => [role, passwordOf(adminUrl, role)]));
    const pooler = await startPooler({ host: hostname, port: Number(port || '5432') }, logins);
    keep({
      ...server,
      async stop() {
        await pooler.stop();
        await server.stop();
      },
    });
    state.poolerPort = pooler.port;
  }
  process.env[CLUSTER_VARIABLE] = JSON.stringify(state);
}
