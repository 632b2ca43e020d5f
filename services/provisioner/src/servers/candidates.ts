import type { Tx } from '@mad/postgres';
import type { Candidate } from '../domain/placement.ts';

interface Row extends Omit<Candidate, 'sample'> {
  error: string | null;
  sizeBytes: number;
  sessions: number;
  active: number;
}

/** Looked at so long ago, a server is as good as unknown. */
const SAMPLE_AGE = '2 minutes';

/** Every server as placement sees it, by name. */
export async function readCandidates(tx: Tx): Promise<Candidate[]> {
  const rows = await tx.query<Row>(
    `SELECT s.server_id AS "serverId", s.name, s.region, s.draining, s.max_tenants AS "maxTenants",
       s.connection_budget AS budget, p.error, p.size_bytes::float8 AS "sizeBytes", p.sessions, p.active,
       (SELECT count(*) FROM provisioner.tenants t WHERE t.server_id = s.server_id AND t.state <> 'erased')::int AS tenants
     FROM provisioner.database_servers s
       LEFT JOIN provisioner.server_samples p ON p.server_id = s.server_id AND p.sampled_at > now() - interval '${SAMPLE_AGE}'
     ORDER BY s.name`,
  );
  return rows.map(({ error, sizeBytes, sessions, active, ...server }) => {
    return error === null ? server : { ...server, sample: { error, sizeBytes, sessions, active } };
  });
}
