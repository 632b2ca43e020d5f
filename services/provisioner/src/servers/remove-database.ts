import pg from 'pg';
import type { ServerRow } from '../db/entities/server.ts';
import type { ServerConnections } from './server-connections.ts';
import { dropDatabase } from './tenant-database.ts';

const id = pg.escapeIdentifier;

/**
 * Drops a database and whoever is in it, and first the subscriptions in it, which would keep it: a move may have left one.
 * Nothing when there is none.
 */
export async function removeDatabase(
  connections: ServerConnections,
  server: ServerRow,
  client: pg.ClientBase,
  database: string,
): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT s.subname AS name FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = $1`,
    [database],
  );
  if (rows.length > 0) {
    await connections.as(server, connections.adminLogin(server, database), async (inside) => {
      for (const { name } of rows) await dropSubscription(inside, name);
    });
  }
  await dropDatabase(client, database);
}

/** Drops a subscription of the database. Whoever sends to it is not asked: it may be gone. */
export async function dropSubscription(inside: pg.ClientBase, name: string): Promise<void> {
  await inside.query(`ALTER SUBSCRIPTION ${id(name)} DISABLE`);
  await inside.query(`ALTER SUBSCRIPTION ${id(name)} SET (slot_name = NONE)`);
  await inside.query(`DROP SUBSCRIPTION ${id(name)}`);
}
