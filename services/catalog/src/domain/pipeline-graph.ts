/** A task and those whose items must have ended before its own may start. */
export interface Node {
  id: string;
  dependsOn: readonly string[];
}

/**
 * The tasks upstream first, and among equals in the order given; or the first cycle found, as the ids along it with the
 * first one repeated at its end. Dependencies on unknown tasks are left out.
 */
export function sortTasks<N extends Node>(nodes: readonly N[]): { order: N[] } | { cycle: string[] } {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const order: N[] = [];
  const done = new Set<string>();
  const path: string[] = [];

  const visit = (node: N): string[] | undefined => {
    if (done.has(node.id)) return undefined;
    const start = path.indexOf(node.id);
    if (start >= 0) return [...path.slice(start), node.id];
    path.push(node.id);
    for (const id of node.dependsOn) {
      const upstream = byId.get(id);
      const cycle = upstream && visit(upstream);
      if (cycle) return cycle;
    }
    path.pop();
    done.add(node.id);
    order.push(node);
    return undefined;
  };

  for (const node of nodes) {
    const cycle = visit(node);
    if (cycle) return { cycle };
  }
  return { order };
}
