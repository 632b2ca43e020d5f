import type { JsonObject } from '@bufbuild/protobuf';
import { detailJson } from '../answer.ts';
import type { Answer, Call, ProtocolClient } from '../case.ts';
import { buf, run, type Ended } from './program.ts';

/** `buf curl` in each of its protocols: gRPC with nothing but the address, the others with the contracts at hand. */
export function bufCurlClients(descriptors: string): ProtocolClient[] {
  const http1 = (protocol: string) => ['--protocol', protocol, '--schema', descriptors];
  return [
    bufCurl('buf curl, gRPC', 'grpc', ['--protocol', 'grpc', '--http2-prior-knowledge']),
    bufCurl('buf curl, gRPC-web', 'connect', http1('grpcweb')),
    bufCurl('buf curl, Connect', 'connect', http1('connect')),
  ];
}

function bufCurl(name: string, at: 'grpc' | 'connect', args: string[]): ProtocolClient {
  const program = buf();
  return {
    name,
    at,
    parallel: 6,
    cannot({ method, timeoutMs }) {
      if (timeoutMs !== undefined) return 'buf curl has no option for a deadline';
      if (method.methodKind === 'bidi_streaming' && at === 'connect')
        return 'HTTP/1.1 carries no stream in both directions';
      return undefined;
    },
    async call({ method, address, requests, headers }: Call) {
      const options = Object.entries(headers).flatMap(([header, value]) => ['-H', `${header}: ${value}`]);
      const url = `http://${address}/${method.parent.typeName}/${method.name}`;
      const body = requests.map((request) => JSON.stringify(request)).join('\n');
      return answerOf(await run(program, ['curl', ...args, ...options, '-d', '@-', url], body));
    },
    close: async () => undefined,
  };
}

/** Responses are JSON documents one after the other; an error is one on stderr, and the exit code is its code times 8. */
function answerOf({ code, stdout, stderr }: Ended): Answer {
  const responses = [...stdout.matchAll(/^\{\}$|^\{$[^]*?^\}$/gm)].map(([text]) => JSON.parse(text) as unknown);
  if (code === 0) return { code: 'ok', message: '', details: [], responses };
  if (code === null || code < 8) throw new Error(`buf curl ended with ${code}: ${stderr}`);
  const error = JSON.parse(stderr) as { code: string; message?: string; details?: { type: string; value: string }[] };
  const details = (error.details ?? []).map(({ type, value }): JsonObject => detailJson(type, value));
  return { code: error.code, message: error.message ?? '', details, responses };
}
