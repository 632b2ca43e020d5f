import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { removeEmbeddedPostgres, startEmbeddedPostgres } from '@mad/embedded-postgres';
import { bootstrapTenantServer, clientOptions } from '@mad/postgres';
import pg from 'pg';
import type { RunningProvisioner } from './running-provisioner.ts';

/** A server of its own beside the run's, known to a provisioner under a name. */
export interface SecondServer {
  name: string;
  host: string;
  port: number;
  /** The superuser, in the database postgres; another one after a crash. */
  readonly admin: pg.Client;
  adminUrlTo(database: string): string;
  /** Databases and logins of the schema that are there, without what waits for tenants to come. */
  objects(): Promise<{ databases: string[]; roles: string[] }>;
  /** Kills it with its sessions. */
  down(): Promise<void>;
  /** Starts it again, at the same address, on its data. */
  up(): Promise<void>;
  /** Both. */
  crash(): Promise<void>;
  close(): Promise<void>;
}

const PASSWORDS = { provisionerPassword: 'only-for-this-test-p', migratorPassword: 'only-for-this-test-m' };

/** How ServerService is told of it. */
export const registrationOf = ({ name, host, port }: SecondServer, region = 'local') => ({
  name,
  host,
  port,
  region,
  connectionBudget: 20,
  ...PASSWORDS,
});

/** Starts a server, prepared for the tenants of one schema. */
export async function startSecondServer(
  { schema }: Pick<RunningProvisioner, 'schema'>,
  name: string,
  settings: Readonly<Record<string, string>> = {},
): Promise<SecondServer> {
  const home = await mkdtemp(join(tmpdir(), 'mad-second-'));
  await chmod(home, 0o711);
  const dataDir = join(home, 'postgres');
  const options = { dataDir, settings: { fsync: 'off', ...settings } };
  let server = await startEmbeddedPostgres(options);
  await bootstrapTenantServer(server.adminUrl, { ...PASSWORDS, schema });
  const connect = async (): Promise<pg.Client> => {
    const client = new pg.Client(clientOptions(server.adminUrl));
    client.on('error', () => undefined);
    await client.connect();
    return client;
  };
  let admin = await connect();
  const { hostname: host, port } = new URL(server.adminUrl);
  const self: SecondServer = {
    name,
    host,
    port: Number(port),
    get admin() {
      return admin;
    },
    adminUrlTo(database) {
      const url = new URL(server.adminUrl);
      url.pathname = `/${database}`;
      return url.href;
    },
    async objects() {
      const like = `mad\\_${schema}\\_%`;
      const databases = await admin.query<{ name: string }>(
        `SELECT datname AS name FROM pg_database WHERE datname LIKE $1 AND datname !~ '_(template|stock)_[0-9a-f]{16}$' ORDER BY 1`,
        [like],
      );
      const roles = await admin.query<{ name: string }>(
        `SELECT rolname AS name FROM pg_roles WHERE rolname LIKE $1 AND rolcanlogin ORDER BY 1`,
        [like],
      );
      return { databases: databases.rows.map((row) => row.name), roles: roles.rows.map((row) => row.name) };
    },
    async down() {
      process.kill(server.pid, 'SIGKILL');
      await server.exited;
    },
    async up() {
      server = await startEmbeddedPostgres({ ...options, port: Number(port) });
      admin = await connect();
    },
    async crash() {
      await self.down();
      await self.up();
    },
    async close() {
      await admin.end();
      await server.stop();
      await removeEmbeddedPostgres(dataDir);
      await rm(home, { recursive: true, force: true });
    },
  };
  return self;
}
