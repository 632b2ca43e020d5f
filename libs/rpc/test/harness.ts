import { Agent } from 'node:http';
import { createClient, type Client, type Interceptor, type Transport } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { createLogger, sleep, type Metrics } from '@mad/process';
import { EchoService } from '@mad/proto/echo';
import { Code, ConnectError } from '@connectrpc/connect';
import { grpcTransport, serveRpc, type RpcServer, type ServeRpcOptions } from '../src/index.ts';
import { echoHandlers, type Seen } from './echo.ts';

/** A request that breaks no rule. */
export const valid = { id: '8f14e45f-ceea-4672-8d5b-0c7c1d5f9a10', slug: 'org_1', count: 42, value: 3.25 };

/** A running echo server with what it saw and logged. */
export interface Echo {
  server: RpcServer;
  seen: Seen;
  reset: () => void;
  /** Parsed log lines. */
  lines: Record<string, unknown>[];
}

/** Starts an echo server on free ports of the loopback interface. */
export async function startEcho(
  options: Partial<ServeRpcOptions> & { interceptors?: Interceptor[]; metrics?: Metrics } = {},
): Promise<Echo> {
  const { bound, seen, reset } = echoHandlers();
  const lines: Record<string, unknown>[] = [];
  const destination = { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) };
  const server = await serveRpc({
    service: 'echo',
    host: '127.0.0.1',
    port: 0,
    services: [bound],
    interceptors: [],
    logger: createLogger('echo', { destination }),
    ...options,
  });
  return { server, seen, reset, lines };
}

/** One way to call: client library and protocol. */
export interface Way {
  transport: Transport;
  client: Client<typeof EchoService>;
  close(): void;
}

/** The ways calls arrive in production. */
export const ways = {
  'our transport, gRPC': ({ port }: RpcServer, readMaxBytes?: number): Way => {
    const transport = grpcTransport(`127.0.0.1:${port}`, { readMaxBytes });
    return { transport, client: createClient(EchoService, transport), close: () => transport.close() };
  },
  'Connect client, HTTP/1.1': ({ connectPort }: RpcServer, readMaxBytes = 4 * 1024 * 1024): Way => {
    const agent = new Agent({ keepAlive: true });
    const baseUrl = `http://127.0.0.1:${connectPort}`;
    const transport = createConnectTransport({
      baseUrl,
      httpVersion: '1.1',
      readMaxBytes,
      // Under Jest Node's own errors are of another realm, and Connect does not see that a decompressed text is too large.
      acceptCompression: [],
      nodeOptions: { agent },
    });
    return { transport, client: createClient(EchoService, transport), close: () => agent.destroy() };
  },
  'Connect client, gRPC': ({ port }: RpcServer, readMaxBytes = 4 * 1024 * 1024): Way => {
    const baseUrl = `http://127.0.0.1:${port}`;
    const sessionManager = new Http2SessionManager(baseUrl);
    const transport = createGrpcTransport({ baseUrl, sessionManager, readMaxBytes });
    return { transport, client: createClient(EchoService, transport), close: () => sessionManager.abort() };
  },
} as const;

/** Awaits a failure with a code, and returns it. */
export async function failure(call: Promise<unknown>, code: Code): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    if (!(error instanceof ConnectError)) throw error;
    if (error.code === code) return error;
    throw new Error(`expected ${Code[code]}, got ${error.message}`);
  }
  throw new Error(`expected ${Code[code]}, the call succeeded`);
}

/** Waits for a condition that another task makes true. */
export async function until(what: () => boolean, timeoutMs = 3000): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!what()) {
    if (Date.now() > end) throw new Error(`still not so after ${timeoutMs} ms: ${what.toString()}`);
    await sleep(5);
  }
}

/** All messages of a stream. */
export async function collect<T>(messages: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const message of messages) all.push(message);
  return all;
}
