import type { Database } from '@mad/postgres';
import { SECOND_MS } from '@mad/process';
import type pg from 'pg';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import type { Held } from '../operations/lease.ts';
import type { StepContext, Subject } from '../provisioning/steps.ts';
import { lockByName } from '../servers/tenant-database.ts';
import { moveParams } from './move-params.ts';

/** The provisioner's connection to a server. */
export interface Place {
  client: pg.ClientBase;
  server: ServerRow;
}

/**
 * Runs `fn` on one end of a move, under the tenant's lock there: what a run that lost its lease still does is waited for.
 * `client` is the connection the operation's run holds, to the server the tenant was on when the run began.
 */
export async function onEnd<T>(
  { database, connections }: StepContext,
  client: pg.ClientBase,
  { server }: Subject,
  held: Held,
  end: 'source' | 'target',
  fn: (place: Place) => Promise<T>,
): Promise<T> {
  const params = moveParams(held);
  const serverId = end === 'source' ? params.source_server_id : params.target_server_id;
  if (serverId === server.server_id) return fn({ client, server });
  const other = await serverById(database, serverId);
  return connections.asAdmin(other, async (there) => {
    await lockByName(there, `mad.tenant.${held.schema}.${held.orgId}`, 30 * SECOND_MS);
    return fn({ client: there, server: other });
  });
}

export async function serverById(database: Database, serverId: string): Promise<ServerRow> {
  const [server] = await database.asSystem((tx) =>
    tx.query<ServerRow>(`SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers WHERE server_id = $1`, [serverId]),
  );
  if (server === undefined) throw new Error(`no server ${serverId}`);
  return server;
}

/** What Postgres calls the installation behind a connection: two names in our list may lead to one. */
export async function systemOf(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ id: string }>('SELECT system_identifier::text AS id FROM pg_control_system()');
  return rows[0]!.id;
}
