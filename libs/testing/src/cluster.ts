import { createHmac } from 'node:crypto';

/** The services with logins in the metadata database. */
export const SERVICES = ['identity', 'catalog', 'provisioner'] as const;

/** How the setup tells the workers where the server is. */
export const CLUSTER_VARIABLE = 'MAD_TEST_CLUSTER';

export interface ClusterState {
  adminUrl: string;
  /** Where PgBouncer listens on 127.0.0.1, when the run has one. */
  poolerPort?: number;
}

/** The run's Postgres server. */
export interface TestCluster {
  /** A superuser's URL, to the database `postgres`. */
  adminUrl: string;
  host: string;
  port: number;
  /** Where it is as routes and registrations say it: one in a container may be beyond loopback, and has no TLS. */
  place: { host: string; port: number; sslmode: string };
  /** The URL of one of the roles that the setup made, e.g. `mad_identity`, `mad_provisioner_admin`, `mad_migrator`. */
  url(role: string, database: string): string;
  /** As `url`, through the run's pooler when it has one. */
  pooledUrl(role: string, database: string): string;
  /** The superuser's URL to another database. */
  adminUrlTo(database: string): string;
}

/** Derived, not random: two runs against one given server must agree, since roles belong to the whole server. */
export function passwordOf(adminUrl: string, role: string): string {
  return createHmac('sha256', new URL(adminUrl).password).update(`mad-test:${role}`).digest('base64url');
}

/** The run's server. Throws outside a Jest run with this package's global setup. */
export function testCluster(): TestCluster {
  const text = process.env[CLUSTER_VARIABLE];
  if (text === undefined) throw new Error(`${CLUSTER_VARIABLE} is not set: tests run through the root's Jest config`);
  const { adminUrl, poolerPort } = JSON.parse(text) as ClusterState;
  const { hostname: host, port: portText, searchParams } = new URL(adminUrl);
  const port = Number(portText || '5432');
  const to = (database: string): URL => {
    const url = new URL(adminUrl);
    url.pathname = `/${database}`;
    return url;
  };
  const as = (role: string, database: string): URL => {
    const url = to(database);
    url.username = role;
    url.password = passwordOf(adminUrl, role);
    return url;
  };
  return {
    adminUrl,
    host,
    port,
    place: { host, port, sslmode: searchParams.get('sslmode') ?? '' },
    url: (role, database) => as(role, database).href,
    pooledUrl(role, database) {
      const url = as(role, database);
      if (poolerPort === undefined) return url.href;
      url.host = `127.0.0.1:${poolerPort}`;
      url.search = '?prepare=false';
      return url.href;
    },
    adminUrlTo: (database) => to(database).href,
  };
}
