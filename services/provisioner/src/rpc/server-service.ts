import type { JsonObject } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import type { HandlerContext } from '@connectrpc/connect';
import type { Tx } from '@mad/postgres';
import { ServerService } from '@mad/proto/provisioner';
import { actorOf, bind, callerOf, invalid, nextPageToken, notFound, pageOf, type BoundService } from '@mad/rpc';
import type { ProvisionerContext } from '../context.ts';
import type { PlacementRow } from '../db/entities/placement.ts';
import { SERVER_COLUMNS, type ServerRow } from '../db/entities/server.ts';
import { WEIGHTS } from '../domain/placement.ts';
import { recordPlatformAudit } from '../provisioning/audit.ts';
import { checkServer } from '../servers/check-server.ts';
import { standbyProblem } from '../servers/failover.ts';
import { databaseSizes } from '../servers/fleet-statistics.ts';
import { sealRegistration, SERVER_DEFAULTS, upsertServer } from '../servers/registration.ts';
import type { ServerAddress } from '../servers/server-connections.ts';
import { serverMessage, type ListedServer } from './messages.ts';
import { rebalancePlan } from './rebalance-plan.ts';

const LIST_SQL = `
  SELECT s.server_id, s.name, s.host, s.port, s.sslmode, s.region, s.connection_budget, s.max_tenants, s.draining,
    s.labels, s.reserved_connections, s.created_at, s.promoted_at, p.sampled_at, coalesce(p.error, '') AS error,
    coalesce(p.size_bytes, 0) AS size_bytes, coalesce(p.sessions, 0) AS sessions, coalesce(p.active, 0) AS active,
    coalesce(p.max_connections, 0) AS max_connections,
    (SELECT count(*) FROM provisioner.tenants t WHERE t.server_id = s.server_id AND t.state <> 'erased')::int AS tenants,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('host', b.host, 'port', b.port, 'sslmode', b.sslmode)
       ORDER BY b.host, b.port), '[]') FROM provisioner.server_standbys b WHERE b.server_id = s.server_id) AS standbys,
    (SELECT count(*) FROM provisioner.tenant_stock k WHERE k.server_id = s.server_id AND k.state = 'ready')::int AS stock
  FROM provisioner.database_servers s LEFT JOIN provisioner.server_samples p USING (server_id)`;

export function serverService(context: ProvisionerContext): BoundService {
  const { database, boss, master, connections } = context;
  const sizes = databaseSizes(context);

  const read = async (tx: Tx, name: string): Promise<ListedServer> => {
    const [found] = await tx.query<ListedServer>(`${LIST_SQL} WHERE s.name = $1`, [name]);
    if (found === undefined) throw notFound('server', name);
    return found;
  };

  /** Notes who changed a server. `metadata`: never passwords. */
  const audit = (tx: Tx, ctx: HandlerContext, action: string, name: string, metadata: JsonObject): Promise<void> => {
    const fact = { action: `servers.${action}`, entityType: 'server', entityId: name, metadata } as const;
    return recordPlatformAudit(tx, boss, { ...fact, ...actorOf(callerOf(ctx)) });
  };

  /** What a registration leaves as it is, or gets. */
  const reserveOf = async (name: string): Promise<number> => {
    const [known] = await database.asSystem((tx) =>
      tx.query<Pick<ServerRow, 'reserved_connections'>>(
        'SELECT reserved_connections FROM provisioner.database_servers WHERE name = $1',
        [name],
      ),
    );
    return known?.reserved_connections ?? SERVER_DEFAULTS.reservedConnections;
  };

  return bind(ServerService, {
    async registerServer(request, ctx) {
      const { name, host, port, region, sslmode } = request;
      const registration = {
        name,
        host,
        port,
        region,
        sslmode,
        connectionBudget: request.connectionBudget || SERVER_DEFAULTS.connectionBudget,
        maxTenants: request.maxTenants || SERVER_DEFAULTS.maxTenants,
        reservedConnections: request.reservedConnections,
        labels: Object.keys(request.labels).length === 0 ? undefined : request.labels,
        provisionerPassword: request.provisionerPassword,
        migratorPassword: request.migratorPassword,
      };
      if (request.check) {
        const reservedConnections = request.reservedConnections ?? (await reserveOf(name));
        await checkServer(connections, { ...registration, reservedConnections });
      }
      const secrets = await sealRegistration(master, registration);
      const row = await database.asSystem(async (tx) => {
        await upsertServer(tx, registration, secrets);
        await audit(tx, ctx, 'register', name, { host, port, sslmode, region });
        return read(tx, name);
      });
      return { server: serverMessage(row) };
    },

    async listServers(request) {
      const query = 'servers';
      const { size, cursor } = pageOf(request, { query, isCursor: (value) => typeof value === 'string' });
      const rows = await database.asSystem((tx) =>
        tx.query<ListedServer>(`${LIST_SQL} WHERE $1::text IS NULL OR s.name > $1 ORDER BY s.name LIMIT $2`, [
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

    async updateServer({ name, connectionBudget, maxTenants, reservedConnections, labels }, ctx) {
      const row = await database.asSystem(async (tx) => {
        const set = Object.fromEntries(Object.entries(labels).filter(([, value]) => value !== ''));
        const gone = Object.keys(labels).filter((label) => labels[label] === '');
        await tx.execute(
          `UPDATE provisioner.database_servers SET connection_budget = coalesce($2, connection_budget),
             max_tenants = coalesce($3, max_tenants), reserved_connections = coalesce($4, reserved_connections),
             labels = (labels || $5::jsonb) - $6::text[], updated_at = now()
           WHERE name = $1`,
          [name, connectionBudget ?? null, maxTenants ?? null, reservedConnections ?? null, JSON.stringify(set), gone],
        );
        const after = await read(tx, name);
        const { connection_budget, max_tenants, reserved_connections, labels: all } = after;
        await audit(tx, ctx, 'update', name, {
          connection_budget,
          max_tenants,
          reserved_connections,
          labels: { ...all },
        });
        return after;
      });
      return { server: serverMessage(row) };
    },

    async drainServer({ name, undo }, ctx) {
      const row = await database.asSystem(async (tx) => {
        const changed = await tx.execute(
          'UPDATE provisioner.database_servers SET draining = $2, updated_at = now() WHERE name = $1 AND draining <> $2',
          [name, !undo],
        );
        if (changed > 0) await audit(tx, ctx, 'drain', name, { draining: !undo });
        return read(tx, name);
      });
      return { server: serverMessage(row) };
    },

    async setServerStandbys({ name, standbys, check }, ctx) {
      const [server] = await database.asSystem((tx) =>
        tx.query<ServerRow>(`SELECT ${SERVER_COLUMNS} FROM provisioner.database_servers WHERE name = $1`, [name]),
      );
      if (server === undefined) throw notFound('server', name);
      for (const [index, at] of standbys.entries()) {
        const field = `standbys[${index}]`;
        const alike = (one: ServerAddress): boolean => one.host === at.host && one.port === at.port;
        if (alike(server)) throw invalid(field, `is ${name} itself`);
        if (standbys.findIndex(alike) < index) throw invalid(field, 'is given twice');
        if (!check) continue;
        const problem = await standbyProblem(connections, server, at);
        if (problem !== undefined) throw invalid(field, problem);
      }
      const row = await database.asSystem(async (tx) => {
        await tx.execute('DELETE FROM provisioner.server_standbys WHERE server_id = $1', [server.server_id]);
        for (const { host, port, sslmode } of standbys) {
          await tx.execute(
            'INSERT INTO provisioner.server_standbys (server_id, host, port, sslmode) VALUES ($1, $2, $3, $4)',
            [server.server_id, host, port, sslmode],
          );
        }
        const places = standbys.map(({ host, port, sslmode }) => ({ host, port, sslmode }));
        await audit(tx, ctx, 'set_standbys', name, { standbys: places });
        return read(tx, name);
      });
      return { server: serverMessage(row) };
    },

    async whyHere({ orgId, schema }) {
      const [row] = await database.asSystem((tx) =>
        tx.query<PlacementRow>(
          `SELECT org_id, schema, region, server_name, verdicts, placed_at FROM provisioner.placements
           WHERE org_id = $1 AND schema = $2`,
          [orgId, schema],
        ),
      );
      if (row === undefined) throw notFound('placement', `${schema} of ${orgId}`);
      return {
        server: row.server_name,
        region: row.region,
        placeTime: timestampFromDate(row.placed_at),
        verdicts: row.verdicts.map(({ server, score, parts, refused = '' }) => ({
          server,
          score,
          parts: Object.fromEntries(Object.entries(parts).filter(([, part]) => part !== undefined)),
          refused,
        })),
        weights: { ...WEIGHTS },
      };
    },

    planRebalance: ({ maxMoves }, ctx) => rebalancePlan(database, sizes, maxMoves, ctx.signal),
  });
}
