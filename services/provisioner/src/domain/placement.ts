/** A server as placement sees it. */
export interface Candidate {
  serverId: string;
  region: string;
  draining: boolean;
  maxTenants: number;
  tenants: number;
}

/**
 * The server for a new tenant: in its region (data residency is not negotiable), taking new ones, with room, and the
 * emptiest of these by share. Undefined when there is none.
 */
export function place<C extends Candidate>(candidates: readonly C[], region: string): C | undefined {
  const fit = candidates.filter((server) => {
    return server.region === region && !server.draining && server.tenants < server.maxTenants;
  });
  const share = ({ tenants, maxTenants }: C): number => tenants / maxTenants;
  return fit.reduce<C | undefined>((best, server) => {
    return best === undefined || share(server) < share(best) ? server : best;
  }, undefined);
}
