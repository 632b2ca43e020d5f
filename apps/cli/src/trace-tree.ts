import type { SpanLine } from '@mad/process';
import type { LogLine } from './log-lines.ts';

/** Everything known of one trace. */
export interface TraceRecord {
  trace_id: string;
  spans: SpanLine[];
  lines: LogLine[];
}

interface Node {
  at: number;
  entry: { span: SpanLine } | { line: LogLine };
  children: Node[];
}

/** What a line says beside what every line says. */
const KNOWN = new Set(['time', 'level', 'service', 'msg', 'trace_id', 'span_id', 'error', 'err', 'name']);
const MAX_FACTS = 160;

/** A trace for people: steps below those they belong to, in the order of time, with what was logged meanwhile. */
export function traceText({ trace_id: traceId, spans, lines }: TraceRecord): string {
  const roots = treeOf(spans, lines);
  const start = Math.min(...roots.map(({ at }) => at));
  const end = Math.max(...spans.map((span) => millis(span.time) + span.ms), ...lines.map(({ time }) => millis(time)));
  const services = new Set([...spans, ...lines].map(({ service }) => service));
  const title = `trace ${traceId}: ${spans.length} spans, ${lines.length} lines, ${(end - start).toFixed(1)} ms, ${[...services].toSorted().join(', ')}`;
  const rows: string[][] = [];
  const walk = (nodes: Node[], depth: number): void => {
    for (const { at, entry, children } of nodes) {
      const indent = '  '.repeat(depth);
      const offset = `+${(at - start).toFixed(1)}`;
      if ('span' in entry) {
        const { service, name, kind, ms, error, attributes = {} } = entry.span;
        const failed = error === undefined ? '' : ` ✗ ${error}`;
        rows.push([offset, ms.toFixed(1), service, `${indent}${name} (${kind})${factsOf(attributes)}${failed}`]);
      } else {
        const { service, level, msg = '', ...rest } = entry.line;
        const facts = Object.fromEntries(Object.entries(rest).filter(([field]) => !KNOWN.has(field)));
        const failure = (rest['error'] ?? rest['err']) as { message?: string } | undefined;
        const failed = failure?.message === undefined ? '' : ` ✗ ${failure.message}`;
        rows.push([offset, '', service, `${indent}· ${level} ${msg}${factsOf(facts)}${failed}`]);
      }
      walk(children, depth + 1);
    }
  };
  walk(roots, 0);
  const headings = ['at ms', 'took ms', 'service', 'what'];
  const widths = headings.map((heading, i) => Math.max(heading.length, ...rows.map((row) => row[i]!.length)));
  const text = (row: string[]): string =>
    [row[0]!.padStart(widths[0]!), row[1]!.padStart(widths[1]!), row[2]!.padEnd(widths[2]!), row[3]!].join('  ');
  return [title, '', text(headings), ...rows.map(text)].join('\n');
}

function treeOf(spans: readonly SpanLine[], lines: readonly LogLine[]): Node[] {
  const nodes = new Map<string, Node>(
    spans.map((span) => [span.span_id, { at: millis(span.time), entry: { span }, children: [] }]),
  );
  const roots: Node[] = [];
  const place = (node: Node, parent: string | undefined): void => {
    // Its parent may be the caller's, outside of the system, or in a file that is gone.
    ((parent !== undefined && nodes.get(parent)?.children) || roots).push(node);
  };
  for (const span of spans) place(nodes.get(span.span_id)!, span.parent_span_id);
  for (const line of lines) place({ at: millis(line.time), entry: { line }, children: [] }, line.span_id);
  for (const { children } of [{ children: roots }, ...nodes.values()]) children.sort((a, b) => a.at - b.at);
  return roots;
}

function factsOf(facts: Record<string, unknown>): string {
  const text = Object.entries(facts)
    .filter(([, value]) => value !== undefined && value !== '')
    .map(([field, value]) => ` ${field}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join('');
  return text.length > MAX_FACTS ? `${text.slice(0, MAX_FACTS)}…` : text;
}

/** Milliseconds since 1970, with the fractions that Date.parse drops. */
function millis(time: string): number {
  const micros = /\.\d{3}(\d{3})Z$/.exec(time);
  return Date.parse(time) + (micros ? Number(micros[1]) / 1000 : 0);
}
