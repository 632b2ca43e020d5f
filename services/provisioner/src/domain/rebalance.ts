/** A tenant as the plan sees it. */
export interface PlacedTenant {
  orgId: string;
  schema: string;
  database: string;
  /** 0 where it could not be measured. */
  sizeBytes: number;
}

/** A server and what it holds. */
export interface Holder {
  name: string;
  region: string;
  draining: boolean;
  maxTenants: number;
  tenants: readonly PlacedTenant[];
}

/** One tenant that should change servers. */
export interface Move {
  tenant: PlacedTenant;
  from: string;
  to: string;
  reason: 'draining' | 'even_out';
}

/** Servers are not evened out for less than this difference between the fullest and the emptiest. */
const TOLERANCE = 0.05;

/**
 * What to move so that draining servers become empty and the others of each region are equally full, in this order and at
 * most so many; never out of a region. `stuck`: tenants of draining servers that have nowhere to go. Small databases are
 * moved to even out, because that is cheap.
 */
export function planRebalance(servers: readonly Holder[], limit: number): { moves: Move[]; stuck: PlacedTenant[] } {
  const moves: Move[] = [];
  const stuck: PlacedTenant[] = [];
  for (const region of [...new Set(servers.map((server) => server.region))].sort()) {
    const here = servers.filter((server) => server.region === region);
    const counts = new Map(here.map(({ name, tenants }) => [name, tenants.length]));
    const targets = here.filter(({ draining }) => !draining);
    const shareOf = ({ name, maxTenants }: Holder): number => counts.get(name)! / maxTenants;
    const emptiest = (): Holder | undefined =>
      targets
        .filter(({ name, maxTenants }) => counts.get(name)! < maxTenants)
        .toSorted((a, b) => shareOf(a) - shareOf(b))[0];
    const move = (tenant: PlacedTenant, from: Holder, to: Holder, reason: Move['reason']): void => {
      moves.push({ tenant, from: from.name, to: to.name, reason });
      counts.set(from.name, counts.get(from.name)! - 1);
      counts.set(to.name, counts.get(to.name)! + 1);
    };
    for (const from of here.filter(({ draining }) => draining)) {
      for (const tenant of from.tenants) {
        const to = emptiest();
        if (to === undefined) stuck.push(tenant);
        else if (moves.length < limit) move(tenant, from, to, 'draining');
      }
    }
    const left = new Map(targets.map(({ name, tenants }) => [name, tenants.toSorted(bySize)]));
    while (moves.length < limit) {
      const to = emptiest();
      const from = targets.toSorted((a, b) => shareOf(b) - shareOf(a))[0];
      if (to === undefined || from === undefined || shareOf(from) - shareOf(to) <= TOLERANCE) break;
      // Not when it would only turn the difference round.
      if ((counts.get(to.name)! + 1) / to.maxTenants >= shareOf(from)) break;
      const tenant = left.get(from.name)!.shift();
      if (tenant === undefined) break;
      move(tenant, from, to, 'even_out');
    }
  }
  return { moves, stuck };
}

function bySize(a: PlacedTenant, b: PlacedTenant): number {
  return a.sizeBytes - b.sizeBytes || (a.database < b.database ? -1 : 1);
}
