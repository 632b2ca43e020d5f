import { createClient, type Client } from '@connectrpc/connect';
import { createLogger, uuidv7 } from '@mad/process';
import { EchoService, UnguardedService } from '@mad/proto/echo';
import { bind, callerOf, grpcTransport, orgOf, serveRpc, traceOf } from '@mad/rpc';
import {
  accessInterceptor,
  createAccessTokenVerifier,
  createServiceTokenVerifier,
  generateSigningKey,
  signAccessToken,
  type AccessTokenClaims,
  type SigningKey,
} from '../src/index.ts';

/** A server with access control, and the keys it trusts. */
export interface Guarded {
  echo: Client<typeof EchoService>;
  unguarded: Client<typeof UnguardedService>;
  port: number;
  connectPort: number;
  userKey: SigningKey;
  serviceKeys: Record<'catalog' | 'worker' | 'results', SigningKey>;
  close(): Promise<void>;
}

/** The organization and user of `userClaims`. */
export const orgId = uuidv7();
export const userId = uuidv7();

/** What a user of the organization may say, with the permission that the echo service asks for. */
export const userClaims: AccessTokenClaims = { userId, orgId, roles: ['user'], permissions: ['jobs.read', 'echo.ask'] };

/** A platform administrator. */
export const platformClaims: AccessTokenClaims = {
  userId,
  roles: ['super_admin'],
  permissions: ['platform.echo.ask', 'echo.ask'],
};

/** Starts an echo server that lets in who the access options name. */
export async function startGuarded(): Promise<Guarded> {
  const userKey = await generateSigningKey();
  const serviceKeys = {
    catalog: await generateSigningKey(),
    worker: await generateSigningKey(),
    results: await generateSigningKey(),
  };
  const { catalog, worker, results } = serviceKeys;
  const server = await serveRpc({
    service: 'echo',
    host: '127.0.0.1',
    port: 0,
    logger: createLogger('echo', { level: 'silent' }),
    interceptors: [
      accessInterceptor({
        verifyUser: createAccessTokenVerifier({ jwks: async () => ({ keys: [userKey.publicJwk] }) }),
        verifyService: createServiceTokenVerifier({
          keys: { catalog: catalog.publicJwk, worker: [worker.publicJwk], results: results.publicJwk },
        }),
      }),
    ],
    services: [
      bind(EchoService, {
        unary: (request) => ({ id: request.id }),
        askUser: (_request, context) => ({ caller: JSON.stringify(callerOf(context)), orgId: orgOf(context) }),
        async *askUserStream(requests, context) {
          for await (const _request of requests) yield { caller: JSON.stringify(callerOf(context)) };
        },
        askPlatform: (_request, context) => ({ caller: JSON.stringify(callerOf(context)) }),
        askService: (_request, context) => ({
          caller: JSON.stringify(callerOf(context)),
          traceId: traceOf(context).traceId,
        }),
      }),
      bind(UnguardedService, { askAnyone: () => ({}), askAnyUser: () => ({}), askAnyService: () => ({}) }),
    ],
  });
  const transport = grpcTransport(`127.0.0.1:${server.port}`);
  return {
    echo: createClient(EchoService, transport),
    unguarded: createClient(UnguardedService, transport),
    port: server.port,
    connectPort: server.connectPort,
    userKey,
    serviceKeys,
    close: async () => {
      transport.close();
      await server.close();
    },
  };
}

/** A user's token of a guarded server. */
export function userToken({ userKey }: Guarded, claims: Partial<AccessTokenClaims> = {}): Promise<string> {
  return signAccessToken(userKey, { ...userClaims, ...claims });
}

/** Call options that carry a token. */
export function bearer(token: string): { headers: { authorization: string } } {
  return { headers: { authorization: `Bearer ${token}` } };
}
