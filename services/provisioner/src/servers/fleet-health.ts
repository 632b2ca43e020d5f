import { create } from '@bufbuild/protobuf';
import { ConnectError } from '@connectrpc/connect';
import { SECOND_MS, sleep } from '@mad/process';
import {
  GetFleetHealthResponseSchema,
  KeyServiceHealthSchema,
  ServerHealthSchema,
  type GetFleetHealthResponse,
  type KeyServiceHealth,
} from '@mad/proto/provisioner';
import type { ProvisionerContext } from '../context.ts';
import type { ServerRow } from '../db/entities/server.ts';

/** Whoever asks more often gets the answer before: probes open connections. */
const FRESH_MS = SECOND_MS;
const PROBE_MS = 2 * SECOND_MS;

/** One probe per server and the tenants counted by state; asked once for all who ask within a second. */
export function fleetHealth(context: ProvisionerContext): () => Promise<GetFleetHealthResponse> {
  let last: { answer: Promise<GetFleetHealthResponse>; at: number } | undefined;
  return () => {
    if (last === undefined || performance.now() - last.at > FRESH_MS) {
      last = { answer: look(context), at: performance.now() };
    }
    return last.answer;
  };
}

async function look(context: ProvisionerContext): Promise<GetFleetHealthResponse> {
  const { database, connections, logger } = context;
  let found: { servers: ServerRow[]; states: { state: string; count: number }[] };
  const began = performance.now();
  try {
    found = await database.asSystem(async (tx) => ({
      servers: await tx.query<ServerRow>(
        `SELECT server_id, name, host, port, sslmode, provisioner_secret, migrator_secret, master_key_version
         FROM provisioner.database_servers ORDER BY name`,
      ),
      states: await tx.query<{ state: string; count: number }>(
        'SELECT upper(state) AS state, count(*) AS count FROM provisioner.tenants GROUP BY state',
      ),
    }));
  } catch (error) {
    logger.warn({ error }, 'the metadata database does not answer');
    return create(GetFleetHealthResponseSchema, { metadataLatencyMs: -1 });
  }
  const metadataLatencyMs = performance.now() - began;
  const asked = keyServiceHealth(context);
  const servers = await Promise.all(
    found.servers.map(async (server) => {
      try {
        const latencyMs = await connections.probe(server);
        return create(ServerHealthSchema, { name: server.name, healthy: true, latencyMs });
      } catch (error) {
        logger.warn({ error, server: server.name }, 'a server does not answer');
        return create(ServerHealthSchema, { name: server.name, healthy: false, error: 'the server does not answer' });
      }
    }),
  );
  const tenantsByState = Object.fromEntries(found.states.map(({ state, count }) => [state, BigInt(count)]));
  return create(GetFleetHealthResponseSchema, {
    servers,
    tenantsByState,
    metadataLatencyMs,
    keyService: await asked,
  });
}

/** One question to the key service, where there is one. Whoever waits for readiness waits no longer than for a server. */
async function keyServiceHealth({ master, logger }: ProvisionerContext): Promise<KeyServiceHealth | undefined> {
  if (master.source === 'local') return undefined;
  const began = performance.now();
  const limit = new AbortController();
  try {
    const late = sleep(PROBE_MS, limit.signal).then(() => {
      throw new Error('the key service does not answer in time');
    });
    // Both go on when the other was faster.
    const answer = master.standing();
    late.catch(() => undefined);
    answer.catch(() => undefined);
    await Promise.race([answer, late]);
    return create(KeyServiceHealthSchema, { healthy: true, latencyMs: performance.now() - began });
  } catch (error) {
    logger.warn({ error }, 'the key service is of no use');
    const message = error instanceof ConnectError ? error.rawMessage : (error as Error).message;
    return create(KeyServiceHealthSchema, { healthy: false, error: message });
  } finally {
    limit.abort();
  }
}
