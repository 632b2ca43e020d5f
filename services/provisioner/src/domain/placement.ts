/** A server as placement sees it. */
export interface Candidate {
  serverId: string;
  name: string;
  region: string;
  draining: boolean;
  maxTenants: number;
  tenants: number;
  /** Connections that tenants may hold together. */
  budget: number;
  /** How it was found a moment ago; undefined when nobody looked lately. */
  sample?: { error: string; sizeBytes: number; sessions: number; active: number };
}

/** Why a server takes no new tenant. */
export type Refusal = 'other_region' | 'draining' | 'full' | 'unreachable';

/** What counts for how much. A tenant's size and load are not known before it works: its number counts most. */
export const WEIGHTS = { tenants: 0.4, size: 0.3, connections: 0.2, load: 0.1 } as const;

/** What was said of a server, and why. */
export interface Verdict {
  server: string;
  /** 0 is empty, 1 is full in everything that is weighed; the least is taken. */
  score: number;
  /** Each between 0 and 1; undefined where it was not weighed, because it is not known of every server. */
  parts: { tenants: number; size?: number; connections?: number; load?: number };
  refused?: Refusal;
}

function refusalOf(server: Candidate, region: string): Refusal | undefined {
  if (server.region !== region) return 'other_region';
  if (server.draining) return 'draining';
  if (server.tenants >= server.maxTenants) return 'full';
  return server.sample !== undefined && server.sample.error !== '' ? 'unreachable' : undefined;
}

/**
 * What is to be said of each server for a new tenant of a region, in the order given. Data residency is not negotiable; of
 * those that remain, tenants against capacity, bytes against the largest, connections and working sessions against the
 * budget are weighed. Where one was not sampled, only tenants count: what is unknown must not look empty.
 */
export function weigh(candidates: readonly Candidate[], region: string): Verdict[] {
  const fit = candidates.filter((server) => refusalOf(server, region) === undefined);
  const sampled = fit.every(({ sample }) => sample !== undefined);
  const largest = Math.max(1, ...fit.map(({ sample }) => sample?.sizeBytes ?? 0));
  return candidates.map((server) => {
    const refused = refusalOf(server, region);
    const parts: Verdict['parts'] = { tenants: share(server.tenants, server.maxTenants) };
    if (sampled && server.sample !== undefined && refused === undefined) {
      parts.size = share(server.sample.sizeBytes, largest);
      parts.connections = share(server.sample.sessions, server.budget);
      parts.load = share(server.sample.active, server.budget);
    }
    return { server: server.name, score: scoreOf(parts), parts, ...(refused === undefined ? {} : { refused }) };
  });
}

/** The one to take: the least score among those that take tenants, the first of equals. Undefined when none does. */
export function best(verdicts: readonly Verdict[]): Verdict | undefined {
  return verdicts
    .filter(({ refused }) => refused === undefined)
    .reduce<Verdict | undefined>(
      (found, one) => (found === undefined || one.score < found.score ? one : found),
      undefined,
    );
}

function share(part: number, whole: number): number {
  return Math.min(1, part / Math.max(1, whole));
}

function scoreOf({ tenants, size, connections, load }: Verdict['parts']): number {
  if (size === undefined || connections === undefined || load === undefined) return tenants;
  const { tenants: byTenants, size: bySize, connections: byConnections, load: byLoad } = WEIGHTS;
  return byTenants * tenants + bySize * size + byConnections * connections + byLoad * load;
}
