import { randomBytes } from 'node:crypto';
import type { Database } from '@mad/postgres';
import { MINUTE_MS, Rounds, sleep, type Logger } from '@mad/process';
import type pg from 'pg';
import type { ServerRow } from '../db/entities/server.ts';
import type { StockRow } from '../db/entities/stock.ts';
import { stockName } from '../domain/names.ts';
import type { SchemaOwners } from '../servers/schema-owners.ts';
import type { ServerConnections } from '../servers/server-connections.ts';
import { findTemplate } from '../servers/template.ts';
import { createDatabase, dropDatabase, tryLockByName } from '../servers/tenant-database.ts';

export interface StockOptions {
  database: Database;
  connections: ServerConnections;
  owners: SchemaOwners;
  logger: Logger;
  /** Clones that wait on each server for each tenant schema; 0 keeps none. */
  size: number;
  /**
   * Clones made per minute at most, on each server for each schema: every database is some 360 files that the next
   * checkpoint must sync, so that a thousand at once would stall everybody on the server.
   */
  perMinute: number;
  /** Time between two looks, in milliseconds. */
  everyMs: number;
}

type StockedServer = ServerRow & { draining: boolean };

/**
 * Keeps clones ready, so that a new organization need not wait for one. Any number of processes may: a lock on the
 * server lets one at a time stock a schema there, so whatever is half made when it gets the lock is a dead one's.
 */
export class StockKeeper {
  readonly #options: StockOptions;
  readonly #rounds: Rounds;

  constructor(options: StockOptions) {
    this.#options = options;
    this.#rounds = new Rounds({ ...options, failure: 'looking after the stock failed' }, (signal) =>
      this.#pass(signal),
    );
  }

  close(): Promise<void> {
    return this.#rounds.close();
  }

  async #pass(signal: AbortSignal): Promise<void> {
    const { database, owners, logger } = this.#options;
    const servers = await database.asSystem((tx) =>
      tx.query<StockedServer>(
        `SELECT server_id, name, host, port, sslmode, draining, provisioner_secret, migrator_secret, master_key_version
         FROM provisioner.database_servers ORDER BY name`,
      ),
    );
    const shelves = servers.flatMap((server) => owners.schemas.map((schema) => ({ server, schema })));
    await Promise.all(
      shelves.map(async ({ server, schema }) => {
        try {
          await this.#tend(server, schema, signal);
        } catch (error) {
          // One server that is away keeps no other from its stock.
          logger.warn({ server: server.name, schema, error }, 'stocking a server failed');
        }
      }),
    );
  }

  /** Clears away what is of no use any more, then makes what is missing. */
  async #tend(server: StockedServer, schema: string, signal: AbortSignal): Promise<void> {
    const { connections, owners, size, perMinute } = this.#options;
    const before = await this.#rows(server, schema);
    if (size === 0 && before.length === 0) return;
    await connections.asAdmin(server, async (client) => {
      if (!(await tryLockByName(client, `mad.stock.${schema}`))) return;
      // A template is made by the first organization that needs it; until then there is nothing to clone.
      const template = await findTemplate(client, schema, owners.of(schema));
      await this.#giveUpClaims(server, schema);
      let ready = 0;
      for (const row of await this.#rows(server, schema)) {
        if (row.state === 'claimed') continue;
        const useful = row.state === 'ready' && row.template === template && !server.draining && ready < size;
        if (useful) ready += 1;
        else await this.#remove(client, row);
      }
      for (; template !== undefined && !server.draining && ready < size; ready += 1) {
        if (signal.aborted) return;
        await this.#make(client, server, schema, template);
        await sleep(MINUTE_MS / perMinute, signal).catch(() => undefined);
      }
    });
  }

  #rows({ server_id: serverId }: ServerRow, schema: string): Promise<StockRow[]> {
    return this.#options.database.asSystem((tx) =>
      tx.query<StockRow>(
        `SELECT stock_id, server_id, schema, database_name, template, state, org_id, created_at
         FROM provisioner.tenant_stock WHERE server_id = $1 AND schema = $2 ORDER BY created_at`,
        [serverId, schema],
      ),
    );
  }

  async #make(client: pg.ClientBase, server: ServerRow, schema: string, template: string): Promise<void> {
    const { database } = this.#options;
    const name = stockName(schema, randomBytes(8).toString('hex'));
    await database.asSystem((tx) =>
      tx.execute(
        `INSERT INTO provisioner.tenant_stock (stock_id, server_id, schema, database_name, template)
         VALUES (gen_random_uuid(), $1, $2, $3, $4)`,
        [server.server_id, schema, name, template],
      ),
    );
    await createDatabase(client, name, template);
    await database.asSystem((tx) =>
      tx.execute(`UPDATE provisioner.tenant_stock SET state = 'ready' WHERE server_id = $1 AND database_name = $2`, [
        server.server_id,
        name,
      ]),
    );
  }

  /** What was claimed for an organization that nobody makes a database for any more. */
  async #giveUpClaims({ server_id: serverId }: ServerRow, schema: string): Promise<void> {
    await this.#options.database.asSystem((tx) =>
      tx.execute(
        `UPDATE provisioner.tenant_stock s SET state = 'making', org_id = NULL
         WHERE s.server_id = $1 AND s.schema = $2 AND s.state = 'claimed' AND NOT EXISTS (
           SELECT FROM provisioner.tenants t JOIN provisioner.operations o USING (operation_id)
           WHERE t.org_id = s.org_id AND t.schema = s.schema AND o.state = 'running')`,
        [serverId, schema],
      ),
    );
  }

  /** Only what nobody has claimed meanwhile; from the first commit on nobody can. The row outlives its database. */
  async #remove(client: pg.ClientBase, { stock_id: stockId, database_name: name }: StockRow): Promise<void> {
    const { database } = this.#options;
    const withdrawn = await database.asSystem((tx) =>
      tx.execute(`UPDATE provisioner.tenant_stock SET state = 'making' WHERE stock_id = $1 AND state <> 'claimed'`, [
        stockId,
      ]),
    );
    if (withdrawn === 0) return;
    await dropDatabase(client, name);
    await database.asSystem((tx) => tx.execute('DELETE FROM provisioner.tenant_stock WHERE stock_id = $1', [stockId]));
  }
}
