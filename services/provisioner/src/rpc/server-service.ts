import { ServerService } from '@mad/proto/provisioner';
import { bind, nextPageToken, pageOf, type BoundService } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import type { ServerRow } from '../db/entities/server.ts';
import { SERVER_DEFAULTS, upsertServer } from '../servers/registration.ts';
import { serverMessage } from './messages.ts';

type Listed = ServerRow & { tenants: number; stock: number };

const LIST_SQL = `
  SELECT s.server_id, s.name, s.host, s.port, s.sslmode, s.region, s.connection_budget, s.max_tenants, s.draining,
    s.created_at,
    (SELECT count(*) FROM provisioner.tenants t WHERE t.server_id = s.server_id AND t.state <> 'erased')::int AS tenants,
    (SELECT count(*) FROM provisioner.tenant_stock k WHERE k.server_id = s.server_id AND k.state = 'ready')::int AS stock
  FROM provisioner.database_servers s`;

export function serverService({ database, master }: ProvisionerContext): BoundService {
  return bind(ServerService, {
    async registerServer(request) {
      const { name, host, port, region, sslmode } = request;
      const row = await database.asSystem(async (tx) => {
        await upsertServer(tx, master, {
          name,
          host,
          port,
          region,
          sslmode,
          connectionBudget: request.connectionBudget || SERVER_DEFAULTS.connectionBudget,
          maxTenants: request.maxTenants || SERVER_DEFAULTS.maxTenants,
          provisionerPassword: request.provisionerPassword,
          migratorPassword: request.migratorPassword,
        });
        const [found] = await tx.query<Listed>(`${LIST_SQL} WHERE s.name = $1`, [name]);
        return found!;
      });
      return { server: serverMessage(row) };
    },

    async listServers(request) {
      const query = 'servers';
      const { size, cursor } = pageOf(request, { query, isCursor: (value) => typeof value === 'string' });
      const rows = await database.asSystem((tx) =>
        tx.query<Listed>(`${LIST_SQL} WHERE $1::text IS NULL OR s.name > $1 ORDER BY s.name LIMIT $2`, [
          cursor ?? null,
          size + 1,
        ]),
      );
      const page = rows.slice(0, size);
      return {
        servers: page.map(serverMessage),
        nextPageToken: rows.length > size ? nextPageToken(query, page.at(-1)!.name) : '',
      };
    },
  });
}
