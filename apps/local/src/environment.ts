import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { METADATA_SERVICES, SIGNERS, type Secrets } from './secrets.ts';
import type { Ports } from './ports.ts';

/** The name of a local system's only tenant server, and its region. */
export const SERVER_NAME = 'local';

/** Where the databases are. */
export interface PostgresPlace {
  host: string;
  port: number;
  /** The metadata database's name. */
  database: string;
  /** `disable` waives TLS beyond loopback, where it is otherwise asked for and verified. */
  sslmode?: 'disable';
}

/** What a local system is made of. */
export interface LocalParts {
  home: string;
  postgres: PostgresPlace;
  ports: Ports;
  secrets: Secrets;
}

/** Environment variables by name. */
export type Environment = Record<string, string>;

/**
 * The environment of every service of a local system, the same a container would get: the one place where a local
 * system's settings are decided. What `outer` sets wins, so `REDIS_URL=… make up` works.
 */
export function environmentOf(parts: LocalParts, outer: Readonly<Record<string, string | undefined>>): Environment {
  const { home, postgres, ports, secrets } = parts;
  const { passwords } = secrets;
  const environment: Environment = {
    ...secretSettings(postgres, secrets),
    PROVISIONER_TENANT_SCHEMAS: `results=127.0.0.1:${ports.results.port}`,
    PROVISIONER_SERVERS: JSON.stringify([
      {
        name: SERVER_NAME,
        host: postgres.host,
        port: postgres.port,
        region: SERVER_NAME,
        provisioner_password: passwords.provisionerAdmin,
        migrator_password: passwords.migrator,
      },
    ]),
    OBJECT_STORE_URL: pathToFileURL(join(home, 'objects')).href,
    GATEWAY_PORT: String(ports.gateway),
    // No load balancer has to notice that it ends.
    GATEWAY_DRAIN_MS: '0',
    TRACE_FILE: join(home, 'logs', 'spans.jsonl'),
    WORKER_NAME: `local-${process.pid}`,
    WORKER_CORES: String(availableParallelism()),
  };
  for (const service of ['identity', 'catalog', 'results', 'provisioner'] as const) {
    const { port, connectPort } = ports[service];
    environment[`${service.toUpperCase()}_PORT`] = String(port);
    environment[`${service.toUpperCase()}_CONNECT_PORT`] = String(connectPort);
    environment[`${service.toUpperCase()}_ADDRESS`] = `127.0.0.1:${port}`;
  }
  for (const [name, value] of Object.entries(outer)) if (value !== undefined) environment[name] = value;
  return environment;
}

/** The settings of every service that are secret, or made together with what is: keys, and URLs with passwords. */
export function secretSettings(postgres: PostgresPlace, secrets: Secrets): Environment {
  const { signingKeys, masterKeys, passwords } = secrets;
  const publicKeys = SIGNERS.map((service) => [service, signingKeys[service].publicJwk] as const);
  const environment: Environment = {
    MAD_SERVICE_KEYS: JSON.stringify(Object.fromEntries(publicKeys)),
    IDENTITY_MASTER_KEY: masterKeys.identity,
    PROVISIONER_MASTER_KEY: masterKeys.provisioner,
  };
  for (const service of SIGNERS) {
    environment[`${service.toUpperCase()}_SERVICE_KEY`] = JSON.stringify(signingKeys[service].privateJwk);
  }
  for (const service of METADATA_SERVICES) {
    const { app, system } = passwords.services[service];
    environment[`${service.toUpperCase()}_DATABASE_URL`] = urlOf(postgres, `mad_${service}`, app);
    environment[`${service.toUpperCase()}_SYSTEM_URL`] = urlOf(postgres, `mad_${service}_system`, system);
  }
  return environment;
}

/** The URL of a login of the metadata database. Holds the password. */
export function urlOf({ host, port, database, sslmode }: PostgresPlace, user: string, password: string): string {
  const url = `postgres://${user}:${encodeURIComponent(password)}@${host}:${port}/${database}`;
  return sslmode === undefined ? url : `${url}?sslmode=${sslmode}`;
}
