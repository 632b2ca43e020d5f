import { create } from '@bufbuild/protobuf';
import { timestampFromDate } from '@bufbuild/protobuf/wkt';
import { ConnectError } from '@connectrpc/connect';
import { HOUR_MS, SECOND_MS, sleep } from '@mad/process';
import {
  GetFleetHealthResponseSchema,
  KeyServiceHealthSchema,
  MetadataBackupHealthSchema,
  ServerHealthSchema,
  type GetFleetHealthResponse,
  type KeyServiceHealth,
  type MetadataBackupHealth,
} from '@mad/proto/provisioner';
import { lastMetadataArchive } from '../backups/metadata.ts';
import type { ProvisionerContext } from '../context.ts';
import type { ServerRow } from '../db/entities/server.ts';

/** Whoever asks more often gets the answer before: probes open connections. */
const FRESH_MS = SECOND_MS;
const PROBE_MS = 2 * SECOND_MS;
/** Archives are made by the hour, and a store that is paid by request is asked less often. */
const ARCHIVE_FRESH_MS = 10 * SECOND_MS;
/** An archive is overdue when two tries more could have made it. */
const OVERDUE_MS = 2 * HOUR_MS;

/** One probe per server and the tenants counted by state; asked once for all who ask within a second. */
export function fleetHealth(context: ProvisionerContext): () => Promise<GetFleetHealthResponse> {
  const archives = fresh(ARCHIVE_FRESH_MS, () => metadataBackupHealth(context));
  return fresh(FRESH_MS, () => look(context, archives));
}

/** Asks once for all who ask within that time. */
function fresh<T>(ms: number, ask: () => Promise<T>): () => Promise<T> {
  let last: { answer: Promise<T>; at: number } | undefined;
  return () => {
    if (last === undefined || performance.now() - last.at > ms) last = { answer: ask(), at: performance.now() };
    return last.answer;
  };
}

async function look(
  context: ProvisionerContext,
  archives: () => Promise<MetadataBackupHealth>,
): Promise<GetFleetHealthResponse> {
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
  const archived = archives();
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
    metadataBackup: await archived,
  });
}

/** When the metadata was archived, by whomever: the object store knows it. */
async function metadataBackupHealth({
  objects,
  metadataBackupPolicy: { everyHours },
  logger,
}: ProvisionerContext): Promise<MetadataBackupHealth> {
  try {
    const last = await inTime('the object store', () => lastMetadataArchive(objects));
    const late = last !== undefined && Date.now() - last.getTime() > everyHours * HOUR_MS + OVERDUE_MS;
    return create(MetadataBackupHealthSchema, {
      backupTime: last === undefined ? undefined : timestampFromDate(last),
      overdue: everyHours > 0 && late,
    });
  } catch (error) {
    logger.warn({ error }, 'the archives of metadata cannot be listed');
    return create(MetadataBackupHealthSchema, { error: 'the object store does not answer' });
  }
}

/** One question to the key service, where there is one. Whoever waits for readiness waits no longer than for a server. */
async function keyServiceHealth({ master, logger }: ProvisionerContext): Promise<KeyServiceHealth | undefined> {
  if (master.source === 'local') return undefined;
  const began = performance.now();
  try {
    await inTime('the key service', () => master.standing());
    return create(KeyServiceHealthSchema, { healthy: true, latencyMs: performance.now() - began });
  } catch (error) {
    logger.warn({ error }, 'the key service is of no use');
    const message = error instanceof ConnectError ? error.rawMessage : (error as Error).message;
    return create(KeyServiceHealthSchema, { healthy: false, error: message });
  }
}

/** What is answered within two seconds. Throws where nothing is. */
async function inTime<T>(what: string, ask: () => Promise<T>): Promise<T> {
  const limit = new AbortController();
  try {
    const late = sleep(PROBE_MS, limit.signal).then(() => {
      throw new Error(`${what} does not answer in time`);
    });
    // Both go on when the other was faster.
    const answer = ask();
    late.catch(() => undefined);
    answer.catch(() => undefined);
    return await Promise.race([answer, late]);
  } finally {
    limit.abort();
  }
}
