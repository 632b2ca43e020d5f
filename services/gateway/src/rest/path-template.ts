/** A `google.api.http` path template, split into what a router needs. Grammar: google/api/http.proto. */
export interface PathTemplate {
  /** Literal segments, `*` for exactly one segment, `**` (last only) for the rest. */
  segments: string[];
  /** The custom verb behind the last colon, or the empty string. */
  verb: string;
  /** Fields bound by the path: segments[start..end) joined by slashes. */
  variables: PathVariable[];
}

/** One field bound by the path. */
export interface PathVariable {
  /** Dotted path of the field in the request message. */
  field: string;
  start: number;
  end: number;
  /** True when the variable may span several segments: `%2F` stays encoded inside one. */
  spansSegments: boolean;
}

/** Parses a template such as `/v1/organizations/{org_id}/jobs/{job_id}:cancel`; throws on one this router cannot serve. */
export function parsePathTemplate(source: string): PathTemplate {
  const fail = (why: string) => new Error(`path template ${source}: ${why}`);
  if (!source.startsWith('/')) throw fail('must start with a slash');
  const verbAt = source.lastIndexOf(':');
  const hasVerb = verbAt > source.lastIndexOf('/') && verbAt > source.lastIndexOf('}');
  const path = hasVerb ? source.slice(1, verbAt) : source.slice(1);
  const segments: string[] = [];
  const variables: PathVariable[] = [];
  // A variable may contain slashes, so the path is cut only at slashes outside braces.
  for (const part of path.match(/\{[^{}]*\}|[^/{}]+/g) ?? []) {
    if (!part.startsWith('{')) {
      segments.push(part);
      continue;
    }
    const [field = '', pattern = '*'] = part.slice(1, -1).split('=');
    if (!/^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$/.test(field)) throw fail(`bad variable ${part}`);
    const start = segments.length;
    segments.push(...pattern.split('/'));
    const spansSegments = segments.length - start > 1 || segments[start] === '**';
    variables.push({ field, start, end: segments.length, spansSegments });
  }
  if (path === '' || path.includes('//') || path.endsWith('/')) throw fail('has an empty segment');
  if (segments.slice(0, -1).includes('**')) throw fail('** must be last');
  return { segments, verb: hasVerb ? source.slice(verbAt + 1) : '', variables };
}
