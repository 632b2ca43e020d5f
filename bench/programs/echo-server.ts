// An echo server as a process of its own: `raw`, `bare` or `full` (see echo.ts), the latter with the public key of who
// calls.
import { create } from '@bufbuild/protobuf';
import type { Interceptor } from '@connectrpc/connect';
import { Server, ServerCredentials, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js';
import { accessInterceptor, createServiceTokenVerifier, type ServiceKeys } from '@mad/auth';
import { createLogger, createMetrics } from '@mad/process';
import { EchoService, UnaryResponseSchema, type UnaryRequest, type UnaryResponse } from '@mad/proto/echo';
import { bind, callerKey, serveRpc } from '@mad/rpc';
import { serviceDefinition } from '../../libs/rpc/src/codec.ts';
import { serveGrpc } from '../../libs/rpc/src/grpc-server.ts';
import { leaveSignalsToParent, serveProgram } from '../child.ts';
import type { EchoKind } from '../echo.ts';

interface Served {
  port: number;
  close(): Promise<void>;
}

const host = '127.0.0.1';
const answer = ({ id, slug, count, value, data }: UnaryRequest) =>
  create(UnaryResponseSchema, { id, slug, count, value, data });
const handlers = bind(EchoService, { unary: answer });

/** The floor: grpc-js as its documentation has it, with the same codec. */
async function serveRaw(): Promise<Served> {
  const server = new Server();
  const unary = (call: ServerUnaryCall<UnaryRequest, UnaryResponse>, done: sendUnaryData<UnaryResponse>): void =>
    done(null, answer(call.request));
  server.addService(
    serviceDefinition(EchoService, () => undefined),
    { unary },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host}:0`, ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return { port, close: async () => server.forceShutdown() };
}

async function serveBare(): Promise<Served> {
  const logger = createLogger('echo');
  const readMaxBytes = 4 * 1024 * 1024;
  const server = await serveGrpc({
    host,
    port: 0,
    services: [handlers],
    interceptors: [],
    readMaxBytes,
    logger,
  });
  return { port: server.port, close: () => server.close(0) };
}

/** Trace, access log, metrics, access control and validation, as every service is served. */
function serveFull(keys: ServiceKeys): Promise<Served> {
  const verifyService = createServiceTokenVerifier({ keys });
  // Echo's methods are public, and the access interceptor verifies nobody there: this does what it does elsewhere.
  const verify: Interceptor = (next) => async (request) => {
    const token = request.header.get('authorization')?.slice('Bearer '.length) ?? '';
    request.contextValues.set(callerKey, await verifyService(token));
    return next(request);
  };
  const noUsers = () => Promise.reject(new Error('echo has no users'));
  return serveRpc({
    service: 'echo',
    host,
    port: 0,
    services: [handlers],
    interceptors: [accessInterceptor({ verifyUser: noUsers, verifyService }), verify],
    logger: createLogger('echo'),
    metrics: createMetrics('echo'),
    drainMs: 0,
  });
}

leaveSignalsToParent();
const [kind, keys = '{}'] = process.argv.slice(2) as [EchoKind, string?];
const serve = { raw: serveRaw, bare: serveBare, full: () => serveFull(JSON.parse(keys) as ServiceKeys) };
const served = await serve[kind]();
serveProgram({ port: served.port }, () => served.close());
