import { Code } from '@connectrpc/connect';
import { rpcError } from '@mad/rpc';
import type { ServerConnections } from './server-connections.ts';
import type { ServerRegistration } from './registration.ts';

const LOGIN_REFUSED = new Set(['28P01', '28000']);

/**
 * Looks whether a server can hold tenants, with the logins of its registration. Throws FAILED_PRECONDITION that says what is
 * wrong: it does not answer, it lets a login not in, it was not prepared, or its limit leaves no room for budget and reserve.
 */
export async function checkServer(
  connections: ServerConnections,
  server: ServerRegistration & { reservedConnections: number },
): Promise<void> {
  const { provisionerPassword, migratorPassword, connectionBudget, reservedConnections } = server;
  const logins = [
    { user: 'mad_provisioner_admin', password: provisionerPassword },
    { user: 'mad_migrator', password: migratorPassword },
  ];
  const [admin, migrator] = logins.map((login) => ({ ...login, database: 'postgres' }));
  try {
    const { rows } = await connections.as(server, admin!, (client) =>
      client.query<{ createdb: boolean; createrole: boolean; room: number }>(
        `SELECT rolcreatedb AS createdb, rolcreaterole AS createrole,
           current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
             - current_setting('reserved_connections')::int AS room
         FROM pg_roles WHERE rolname = current_user`,
      ),
    );
    const { createdb, createrole, room } = rows[0]!;
    if (!createdb || !createrole) throw refusal(server, 'it was not prepared for tenants: see the runbook');
    const wanted = connectionBudget + reservedConnections;
    // Whoever may use those the server reserves takes others first: a tenant must find its own beside them.
    if (room < wanted) {
      throw refusal(
        server,
        `it allows ${room} connections beside those it reserves, budget and reserve need ${wanted}`,
      );
    }
  } catch (error) {
    throw explained(server, admin!.user, error);
  }
  try {
    // It may connect to no database but those it is let into; that it was known is all that can be learned here.
    await connections.as(server, migrator!, (client) => client.query('SELECT 1'));
  } catch (error) {
    if ((error as { code?: string }).code !== '42501') throw explained(server, migrator!.user, error);
  }
}

function explained(server: ServerRegistration, user: string, error: unknown): unknown {
  const { code } = error as { code?: string | number };
  if (typeof code === 'number') return error;
  if (LOGIN_REFUSED.has(String(code))) return refusal(server, `it does not let ${user} in with this password`, error);
  return refusal(server, 'it does not answer', error);
}

function refusal({ name, host, port }: ServerRegistration, why: string, cause?: unknown): Error {
  const about = { server: name, host, port: String(port) };
  return rpcError(Code.FailedPrecondition, 'DATABASE_UNAVAILABLE', `${name}: ${why}`, about, { cause });
}
