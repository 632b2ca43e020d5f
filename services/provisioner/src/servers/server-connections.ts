import { clientOptions, lossBehind, surviveLosses, withClient } from '@mad/postgres';
import { SECOND_MS, type Logger } from '@mad/process';
import pg from 'pg';
import type { ServerRow } from '../db/entities/server.ts';
import type { MasterKeys } from '../secrets/master-keys.ts';
import { serverPassword } from '../secrets/server-passwords.ts';

/** Administrative connections per server and process at most. */
export const MAX_ADMIN_CONNECTIONS = 8;
const IDLE_MS = 30 * SECOND_MS;
const CONNECT_TIMEOUT_MS = 5 * SECOND_MS;
const PROBE_TIMEOUT_MS = 2 * SECOND_MS;

/** A login to one database of a server. */
export interface Login {
  user: string;
  password: string;
  database: string;
}

/** Where a server is. */
export type ServerAddress = Pick<ServerRow, 'host' | 'port' | 'sslmode'>;

/** Connections to the servers that hold tenants. */
export class ServerConnections {
  readonly #master: MasterKeys;
  readonly #logger: Logger;
  readonly #pools = new Map<string, { pool: pg.Pool; address: string }>();
  readonly #probes = new Map<string, Promise<unknown>>();

  constructor(master: MasterKeys, logger: Logger) {
    this.#master = master;
    this.#logger = logger;
  }

  /** Runs `fn` as mad_provisioner_admin in the server's database `postgres`. Every session lock is gone afterwards. */
  async asAdmin<T>(server: ServerRow, fn: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    const client = await (await this.#pool(server)).connect();
    let broken: Error | undefined;
    const onError = (error: Error): void => {
      broken ??= error;
    };
    client.on('error', onError);
    try {
      return await fn(client);
    } catch (error) {
      throw lossBehind(error, broken);
    } finally {
      await client.query('SELECT pg_advisory_unlock_all()').catch(onError);
      client.removeListener('error', onError);
      client.release(broken);
    }
  }

  /** Runs `fn` on a connection of its own, e.g. as a tenant's login or inside another database. */
  async as<T>(server: ServerAddress, login: Login | Promise<Login>, fn: (client: pg.Client) => Promise<T>): Promise<T> {
    const config = { ...this.#address(server), ...(await login), connectionTimeoutMillis: CONNECT_TIMEOUT_MS };
    return withClient(config, fn);
  }

  /** Throws UNAVAILABLE (KEY_SERVICE_UNAVAILABLE) when the password is under the key of a service that does not answer. */
  async adminLogin(server: ServerRow, database: string): Promise<Login> {
    const password = await serverPassword(this.#master, server, 'mad_provisioner_admin');
    return { user: 'mad_provisioner_admin', password, database };
  }

  /** Throws like `adminLogin`. */
  async migratorLogin(server: ServerRow, database: string): Promise<Login> {
    return { user: 'mad_migrator', password: await serverPassword(this.#master, server, 'mad_migrator'), database };
  }

  /** Milliseconds one question takes, on a new connection. Rejects when the server does not answer within 2 s. */
  async probe(server: ServerRow): Promise<number> {
    const began = performance.now();
    const limit = Promise.withResolvers<never>();
    const timer = setTimeout(() => limit.reject(new Error('no answer in time')), PROBE_TIMEOUT_MS);
    // One at a time: names that do not resolve hold threads of the process long after a probe has given up.
    const asked = this.#probes.get(server.server_id) ?? this.#ask(server);
    try {
      await Promise.race([asked, limit.promise]);
    } finally {
      clearTimeout(timer);
    }
    return performance.now() - began;
  }

  #ask(server: ServerRow): Promise<unknown> {
    const asked = this.as(server, this.adminLogin(server, 'postgres'), (client) => client.query('SELECT 1'));
    this.#probes.set(server.server_id, asked);
    const forget = (): void => void this.#probes.delete(server.server_id);
    asked.then(forget, forget);
    return asked;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#pools.values()].map(({ pool }) => pool.end()));
    this.#pools.clear();
  }

  async #pool(server: ServerRow): Promise<pg.Pool> {
    // Another address or another password needs other connections.
    const address = [server.host, server.port, server.sslmode, server.provisioner_secret.toString('hex')].join(' ');
    const fits = (): pg.Pool | undefined => {
      const known = this.#pools.get(server.server_id);
      return known?.address === address ? known.pool : undefined;
    };
    const standing = fits();
    if (standing !== undefined) return standing;
    const login = await this.adminLogin(server, 'postgres');
    // Somebody else may have been faster meanwhile.
    const made = fits();
    if (made !== undefined) return made;
    void this.#pools.get(server.server_id)?.pool.end();
    const pool = new pg.Pool({
      ...this.#address(server),
      ...login,
      max: MAX_ADMIN_CONNECTIONS,
      idleTimeoutMillis: IDLE_MS,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      allowExitOnIdle: true,
    });
    surviveLosses(pool, (error) => this.#logger.warn({ error, server: server.name }, 'an idle connection was lost'));
    this.#pools.set(server.server_id, { pool, address });
    return pool;
  }

  #address({ host, port, sslmode }: ServerAddress): pg.ClientConfig {
    const url = new URL(`postgres://${host.includes(':') ? `[${host}]` : host}:${port}`);
    if (sslmode !== '') url.searchParams.set('sslmode', sslmode);
    // A server that vanished in the middle of an answer is noticed, and whoever waits for it need not wait for ever.
    const keepAlive = { keepAlive: true, keepAliveInitialDelayMillis: IDLE_MS };
    return { ...clientOptions(url.href), ...keepAlive, application_name: 'mad-provisioner' };
  }
}
