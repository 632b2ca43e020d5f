import { getOption, hasOption, type DescMethod, type JsonObject } from '@bufbuild/protobuf';
import { http } from '@mad/proto/http';
import { download } from '@mad/proto/rest';
import { codeName, detailJson } from '../answer.ts';
import type { Answer, Call, ProtocolClient } from '../case.ts';
import { run } from './program.ts';

/** Plain curl: Connect's JSON at a service, REST at the gateway. */
export function curlClients(): ProtocolClient[] {
  return [
    {
      name: 'curl, Connect JSON',
      at: 'connect',
      parallel: 6,
      cannot: ({ method }) =>
        method.methodKind === 'unary' ? undefined : 'Connect puts the messages of a stream into binary envelopes',
      call: connectJson,
      close: async () => undefined,
    },
    {
      name: 'curl, REST',
      at: 'gateway',
      parallel: 6,
      cannot({ method, timeoutMs }) {
        if (!hasOption(method, http)) return 'the method has no google.api.http path';
        if (hasOption(method, download)) return 'REST answers with the file itself, not with messages';
        if (timeoutMs !== undefined) return 'REST carries no deadline';
        return undefined;
      },
      call: rest,
      close: async () => undefined,
    },
  ];
}

async function connectJson({ method, address, requests, headers, timeoutMs }: Call): Promise<Answer> {
  const deadline: Record<string, string> = timeoutMs === undefined ? {} : { 'connect-timeout-ms': String(timeoutMs) };
  const url = `http://${address}/${method.parent.typeName}/${method.name}`;
  const { status, body } = await curl('POST', url, { ...headers, ...deadline }, JSON.stringify(requests[0]));
  if (status === 200) return { code: 'ok', message: '', details: [], responses: [JSON.parse(body)] };
  const error = JSON.parse(body) as { code: string; message?: string; details?: { type: string; value: string }[] };
  const details = (error.details ?? []).map(({ type, value }) => detailJson(type, value));
  return { code: error.code, message: error.message ?? '', details, responses: [] };
}

async function rest({ method, address, requests, headers }: Call): Promise<Answer> {
  const { verb, path, body: json } = restRequest(method, requests[0]!);
  const { status, header, body } = await curl(verb, `http://${address}${path}`, headers, json);
  const traceId = /^x-trace-id: (\w+)/im.exec(header)?.[1];
  if (status !== 200) return { ...problem(JSON.parse(body)), responses: [], traceId };
  if (method.methodKind === 'unary')
    return { code: 'ok', message: '', details: [], responses: [JSON.parse(body)], traceId };
  const lines = body
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { result?: unknown; error?: JsonObject });
  const failure = lines.at(-1)?.error;
  const responses = lines.flatMap(({ result }) => (result === undefined ? [] : [result]));
  return { ...(failure ? problem(failure) : { code: 'ok', message: '', details: [] }), responses, traceId };
}

/** What a reader of the contracts does: fields into the path, then into the body or the query. */
function restRequest(method: DescMethod, request: JsonObject): { verb: string; path: string; body?: string } {
  const { pattern, body } = getOption(method, http);
  const left = { ...request };
  const path = (pattern.value as string).replace(/\{(\w+)\}/g, (_, name: string) => {
    const { jsonName } = method.input.fields.find((field) => field.name === name)!;
    const value = left[jsonName];
    delete left[jsonName];
    return encodeURIComponent(value as string);
  });
  const verb = pattern.case!.toUpperCase();
  if (body === '*') return { verb, path, body: JSON.stringify(left) };
  const query = new URLSearchParams(left as Record<string, string>).toString();
  return { verb, path: query === '' ? path : `${path}?${query}` };
}

function problem(json: JsonObject): Pick<Answer, 'code' | 'message' | 'details'> {
  const { code, detail, details = [] } = json as { code: string; detail: string; details?: JsonObject[] };
  return { code: codeName(code), message: detail, details };
}

async function curl(
  verb: string,
  url: string,
  headers: Record<string, string>,
  body?: string,
): Promise<{ status: number; header: string; body: string }> {
  const given = Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]);
  const sent = body === undefined ? [] : ['-H', 'content-type: application/json', '--data-binary', '@-'];
  const { code, stdout, stderr } = await run('curl', ['-sS', '-i', '-X', verb, ...given, ...sent, url], body);
  if (code !== 0) throw new Error(`curl ended with ${code}: ${stderr}`);
  const end = stdout.indexOf('\r\n\r\n');
  const header = stdout.slice(0, end);
  return { status: Number(/^HTTP\/1\.1 (\d+)/.exec(header)![1]), header, body: stdout.slice(end + 4) };
}
