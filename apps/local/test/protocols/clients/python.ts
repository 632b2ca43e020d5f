import { join } from 'node:path';
import { codeName, detailJson } from '../answer.ts';
import type { Answer, Call, ProtocolClient } from '../case.ts';
import { firstThatRuns, run } from './program.ts';

const CLIENT = join(import.meta.dirname, 'python_client.py');

/** The Python that has grpcio: where another one comes first on the path, Debian's. */
export const pythonWithGrpc = (): string | undefined =>
  firstThatRuns(['python3', '/usr/bin/python3'], ['-c', 'import grpc, google.protobuf']);

interface PythonAnswer {
  id: number;
  code: string;
  message: string;
  details: { type: string; value: string }[];
  responses: unknown[];
}

/** Python with grpcio over the contracts' descriptors. Calls made in one tick go to one process. */
export function pythonClient(python: string, descriptors: string): ProtocolClient {
  let waiting: { call: Call; answer: PromiseWithResolvers<Answer> }[] = [];
  const flush = async (): Promise<void> => {
    const batch = waiting;
    waiting = [];
    try {
      const { code, stdout, stderr } = await run(python, [CLIENT, descriptors], batch.map(lineOf).join(''));
      if (code !== 0) throw new Error(`python ended with ${code}: ${stderr}`);
      for (const line of stdout.trim().split('\n')) {
        const said = JSON.parse(line) as PythonAnswer;
        const details = said.details.map(({ type, value }) => detailJson(type, value));
        batch[said.id]!.answer.resolve({ ...said, code: codeName(said.code), details });
      }
    } catch (error) {
      for (const { answer } of batch) answer.reject(error);
    }
  };
  return {
    name: 'Python, grpcio',
    at: 'grpc',
    parallel: Infinity,
    cannot: () => undefined,
    call(call) {
      const answer = Promise.withResolvers<Answer>();
      if (waiting.push({ call, answer }) === 1) setImmediate(() => void flush());
      return answer.promise;
    },
    close: async () => undefined,
  };
}

function lineOf({ call: { method, address, requests, headers, timeoutMs } }: { call: Call }, id: number): string {
  const { methodKind: kind } = method;
  const asked = {
    id,
    address,
    service: method.parent.typeName,
    method: method.name,
    requestStream: kind === 'client_streaming' || kind === 'bidi_streaming',
    responseStream: kind === 'server_streaming' || kind === 'bidi_streaming',
    requests,
    headers,
    timeout: timeoutMs === undefined ? undefined : timeoutMs / 1000,
  };
  return `${JSON.stringify(asked)}\n`;
}
