import { Code, ConnectError, createClient, type Client } from '@connectrpc/connect';
import { backoff, MINUTE_MS, SECOND_MS, sleep } from '@mad/process';
import {
  TenantSchemaService,
  type DataChangeProgress,
  type ListTablesResponse,
  type MigrateDatabaseResponse,
  type Table,
  type TryMigrationsResponse,
} from '@mad/proto/tenancy';
import { invalid, type GrpcTransport } from '@mad/rpc';
import type { ServerRow } from '../db/entities/server.ts';
import type { ListedMigration } from '../domain/names.ts';
import type { Login } from './server-connections.ts';

/** The list changes with a release of the owner only. */
const LIST_AGE_MS = SECOND_MS;
const MIGRATE_TIMEOUT_MS = 10 * MINUTE_MS;
/** A change of rows goes on for so long before it is looked whether it is to go on. */
const ROWS_BUDGET_MS = SECOND_MS;
/** An owner that is being restarted is back within this time. */
const PATIENCE_MS = 3 * SECOND_MS;
const RETRY = { baseMs: 100, maxMs: 500 };

/** A migration, with what it runs. */
export interface OwnedMigration extends ListedMigration {
  /** The way up, as SQL. */
  up: string;
  /** Whether it has a transaction of its own. */
  transactional: boolean;
}

/** The service that knows the tables of one tenant schema. */
export interface SchemaOwner {
  /** Its migrations, oldest first. */
  migrations(): Promise<OwnedMigration[]>;
  /** Brings a database to a version (empty: the newest), as `role`; `onRows`: told again and again how far a change of rows is, and which version the database has meanwhile. */
  migrate(
    server: ServerRow,
    login: Login,
    role: string,
    version: string,
    onRows?: (progress: DataChangeProgress, reached: string) => Promise<void>,
  ): Promise<MigrateDatabaseResponse>;
  /** Tries that, upwards, in a transaction that is rolled back; `untried` are those that cannot stand in one. */
  tryMigrations(server: ServerRow, login: Login, role: string, version: string): Promise<TryMigrationsResponse>;
  /** What holds a database's data, as `role` sees it through an exported snapshot. */
  tables(
    server: ServerRow,
    login: Login,
    role: string,
    snapshot: string,
    signal: AbortSignal,
  ): Promise<ListTablesResponse>;
  /** Makes the partitions that are missing, as `role`. */
  makePartitions(
    server: ServerRow,
    login: Login,
    role: string,
    partitions: Pick<Table, 'name' | 'partitionOf' | 'bound'>[],
  ): Promise<void>;
}

/** The owners of all tenant schemas, by the schema's name. */
export class SchemaOwners {
  readonly #owners = new Map<string, SchemaOwner>();
  readonly #transports: GrpcTransport[] = [];

  /** `addresses`: "host:port" by tenant schema; `to` opens a channel to one. */
  constructor(addresses: Readonly<Record<string, string>>, to: (address: string) => GrpcTransport) {
    for (const [schema, address] of Object.entries(addresses)) {
      const transport = to(address);
      this.#transports.push(transport);
      this.#owners.set(schema, remoteOwner(createClient(TenantSchemaService, transport)));
    }
  }

  /** Every tenant schema. */
  get schemas(): string[] {
    return [...this.#owners.keys()];
  }

  /** Throws INVALID_ARGUMENT naming the field `schema` when nobody owns it. */
  of(schema: string): SchemaOwner {
    const owner = this.#owners.get(schema);
    if (owner === undefined) throw invalid('schema', `no tenant schema is named ${schema}`);
    return owner;
  }

  close(): void {
    for (const transport of this.#transports) transport.close();
  }
}

function remoteOwner(client: Client<typeof TenantSchemaService>): SchemaOwner {
  let listed: { list: Promise<OwnedMigration[]>; at: number } | undefined;
  return {
    migrations() {
      if (listed === undefined || performance.now() - listed.at > LIST_AGE_MS) {
        const list = patiently(() => client.listMigrations({})).then(({ migrations }) => migrations);
        const mine = { list, at: performance.now() };
        listed = mine;
        list.catch(() => {
          if (listed === mine) listed = undefined;
        });
      }
      return listed.list;
    },
    tables({ host, port, sslmode }, login, role, snapshot, signal) {
      const target = { host, port, sslmode, role, ...login };
      return patiently(() => client.listTables({ target, snapshot }, { timeoutMs: MINUTE_MS, signal }));
    },
    async makePartitions({ host, port, sslmode }, login, role, partitions) {
      if (partitions.length === 0) return;
      const target = { host, port, sslmode, role, ...login };
      await patiently(() => client.makePartitions({ target, partitions }, { timeoutMs: MIGRATE_TIMEOUT_MS }));
    },
    tryMigrations({ host, port, sslmode }, login, role, version) {
      const target = { host, port, sslmode, role, ...login };
      return patiently(() => client.tryMigrations({ target, version }, { timeoutMs: MIGRATE_TIMEOUT_MS }));
    },
    async migrate({ host, port, sslmode }, login, role, version, onRows) {
      const target = { host, port, sslmode, role, ...login };
      const request = { target, version, budgetMs: ROWS_BUDGET_MS };
      for (;;) {
        const answer = await patiently(() => client.migrateDatabase(request, { timeoutMs: MIGRATE_TIMEOUT_MS }));
        if (answer.unfinished === undefined) return answer;
        await onRows?.(answer.unfinished, answer.version);
      }
    },
  };
}

/** Repeats a call that found nobody there; all of ours may be repeated. */
async function patiently<T>(call: () => Promise<T>): Promise<T> {
  const until = performance.now() + PATIENCE_MS;
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await call();
    } catch (error) {
      const away = error instanceof ConnectError && error.code === Code.Unavailable;
      if (!away || performance.now() > until) throw error;
      await sleep(backoff(attempt, RETRY));
    }
  }
}
