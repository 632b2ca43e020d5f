import type { Tx } from '@mad/postgres';
import { SECOND_MS } from '@mad/process';
import { renewLease, type Lease } from '../domain/connection-shares.ts';

/** Clocks run alike, but not to the millisecond: so much later a share that was not renewed is taken back. */
const GRACE_MS = 2 * SECOND_MS;

/** What a process has on one server. */
export interface Holding {
  serverId: string;
  /** Connections it cannot exceed before it hears the answer. */
  held: number;
  wanted: number;
}

/** Connections a process may hold to one server. */
export interface Share {
  serverId: string;
  connections: number;
  generation: number;
}

type LeaseRow = Lease & { generation: number };

/**
 * Leases a process its share of every server for `forMs` milliseconds, or renews it. The servers' rows are locked one after the other, so that
 * what is granted on one never exceeds its budget, however many ask at once.
 */
export async function leaseConnections(
  tx: Tx,
  { node, place }: { node: string; place: string },
  holdings: readonly Holding[],
  forMs: number,
): Promise<{ shares: Share[]; pending: boolean }> {
  const servers = await tx.query<{ server_id: string; connection_budget: number }>(
    'SELECT server_id, connection_budget FROM provisioner.database_servers ORDER BY server_id FOR NO KEY UPDATE',
  );
  // Whoever was at its place before is gone: the keeper ends what is left of it.
  if (place !== '') {
    await tx.execute(`UPDATE provisioner.connection_shares SET expires_at = 'epoch' WHERE place = $1 AND node <> $2`, [
      place,
      node,
    ]);
  }
  const held = new Map(holdings.map((holding) => [holding.serverId, holding]));
  const shares: Share[] = [];
  let pending = false;
  for (const { server_id: serverId, connection_budget: budget } of servers) {
    const leases = await tx.query<LeaseRow>(
      'SELECT node, share, granted, wanted, generation FROM provisioner.connection_shares WHERE server_id = $1',
      [serverId],
    );
    const last = leases.find((one) => one.node === node);
    const others = leases.filter((one) => one.node !== node);
    const holding = held.get(serverId);
    // Whose lease was taken away was cut off: whatever it still counts is gone.
    const asked = { node, held: Math.min(holding?.held ?? 0, last?.granted ?? 0), wanted: holding?.wanted ?? 0 };
    const renewal = renewLease(budget, others, asked);
    const { share, granted, wanted } = renewal.lease;
    pending ||= renewal.pending;
    const generation = last === undefined ? 1 : last.generation + (last.share === share ? 0 : 1);
    await tx.execute(
      `INSERT INTO provisioner.connection_shares (server_id, node, place, share, granted, wanted, generation, expires_at)
       VALUES ($1, $2, $8, $3, $4, $5, $6, now() + $7 * interval '1 ms')
       ON CONFLICT (server_id, node) DO UPDATE SET share = excluded.share, granted = excluded.granted,
         wanted = excluded.wanted, generation = excluded.generation, expires_at = excluded.expires_at`,
      [serverId, node, share, granted, wanted, generation, forMs + GRACE_MS, place],
    );
    shares.push({ serverId, connections: share, generation });
  }
  return { shares, pending };
}

/** Gives back what a process that is closing had. */
export async function releaseConnections(tx: Tx, node: string): Promise<void> {
  await tx.execute('DELETE FROM provisioner.connection_shares WHERE node = $1', [node]);
}
