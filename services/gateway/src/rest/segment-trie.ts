import type { PathTemplate } from './path-template.ts';

interface Node<T> {
  literals: Map<string, Node<T>>;
  one?: Node<T>;
  /** Values of templates that end in `**` here, by "METHOD:verb". */
  rest: Map<string, T>;
  /** Values of templates that end here, by "METHOD:verb". */
  ends: Map<string, T>;
}

/** What the trie knows of a path: the route, or which HTTP methods the path has instead. */
export type Found<T> = { value: T; segments: string[] } | { allow: string[] } | undefined;

const newNode = <T>(): Node<T> => ({ literals: new Map(), rest: new Map(), ends: new Map() });

/**
 * Routes REST paths by segments: a literal wins over `*`, `*` over `**`, with backtracking. Written because the usual
 * routers cannot tell `/{id}` from `/{id}:verb` and decode `%2F` inside a segment.
 */
export class SegmentTrie<T> {
  readonly #root = newNode<T>();
  readonly #verbs = new Set<string>();

  /** Adds a route; two routes for the same method and path are a mistake in the contracts. */
  add(method: string, template: PathTemplate, value: T): void {
    if (template.verb) this.#verbs.add(template.verb);
    let node = this.#root;
    const key = `${method}:${template.verb}`;
    const spansRest = template.segments.at(-1) === '**';
    for (const segment of spansRest ? template.segments.slice(0, -1) : template.segments) {
      node = segment === '*' ? (node.one ??= newNode()) : childOf(node, segment);
    }
    const values = spansRest ? node.rest : node.ends;
    if (values.has(key)) throw new Error(`two routes for ${method} /${template.segments.join('/')}:${template.verb}`);
    values.set(key, value);
  }

  /** Finds the route of a path that is still percent-encoded. */
  find(method: string, path: string): Found<T> {
    let segments = path.slice(1).split('/');
    let verb = '';
    const last = segments.at(-1)!;
    const colon = last.lastIndexOf(':');
    if (colon > 0 && this.#verbs.has(last.slice(colon + 1))) {
      verb = last.slice(colon + 1);
      segments = [...segments.slice(0, -1), last.slice(0, colon)];
    }
    const allow = new Set<string>();
    const pick = (values: Map<string, T>): T | undefined => {
      for (const key of values.keys()) if (key.slice(key.indexOf(':') + 1) === verb) allow.add(key.split(':')[0]!);
      return values.get(`${method}:${verb}`);
    };
    const walk = (node: Node<T>, depth: number): T | undefined => {
      if (depth === segments.length) return pick(node.ends);
      const segment = segments[depth]!;
      const literal = node.literals.get(segment);
      const byLiteral = literal && walk(literal, depth + 1);
      if (byLiteral !== undefined) return byLiteral;
      const byOne = node.one && segment !== '' ? walk(node.one, depth + 1) : undefined;
      return byOne ?? pick(node.rest);
    };
    const value = walk(this.#root, 0);
    if (value !== undefined) return { value, segments };
    return allow.size > 0 ? { allow: [...allow] } : undefined;
  }
}

function childOf<T>(node: Node<T>, segment: string): Node<T> {
  let child = node.literals.get(segment);
  if (!child) node.literals.set(segment, (child = newNode()));
  return child;
}
