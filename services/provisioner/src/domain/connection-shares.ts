/**
 * Divides a server's connections among processes, max-min fair: nobody gets less than an equal part while it has use for
 * more, what some have no use for goes to the others in equal parts. Whole numbers; the sum is the budget. `wanted` are
 * the connections each has use for; the shares come in the same order.
 */
export function divideConnections(budget: number, wanted: readonly number[]): number[] {
  const shares = wanted.map(() => 0);
  let left = budget;
  // Those who want least first: each takes what it wants, or an equal part of what is left.
  const modest = wanted.map((_, index) => index).sort((a, b) => wanted[a]! - wanted[b]! || a - b);
  modest.forEach((index, place) => {
    const share = Math.min(wanted[index]!, Math.floor(left / (modest.length - place)));
    shares[index] = share;
    left -= share;
  });
  // What nobody wants now is there for whoever wants it next.
  modest.forEach((index, place) => {
    const extra = Math.floor(left / (modest.length - place));
    shares[index]! += extra;
    left -= extra;
  });
  return shares;
}

/** What one process may hold, as it is noted. */
export interface Lease {
  node: string;
  /** What it was last told it may hold. */
  share: number;
  /** What it may hold in truth, because it has not yet said that it holds less: never less than `share`. */
  granted: number;
  wanted: number;
}

/** What comes of asking. */
export interface Renewal {
  lease: Lease;
  /** The process, or another, still has to let go of connections before each has its part. */
  pending: boolean;
}

/**
 * The lease of a process that asks: its part, but no more than the others leave. `held` is what it cannot exceed before it
 * hears the answer; until it says that it has let go, that stays granted.
 */
export function renewLease(
  budget: number,
  others: readonly Lease[],
  { node, held, wanted }: { node: string; held: number; wanted: number },
): Renewal {
  const all = [...others, { node, wanted }].sort((a, b) => (a.node < b.node ? -1 : 1));
  const shares = divideConnections(
    budget,
    all.map((one) => one.wanted),
  );
  const part = shares[all.findIndex((one) => one.node === node)]!;
  const room = Math.max(0, budget - others.reduce((sum, { granted }) => sum + granted, 0));
  const share = Math.min(part, room);
  const granted = Math.max(share, held);
  return { lease: { node, share, granted, wanted }, pending: share < part || granted > share };
}
