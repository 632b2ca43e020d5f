import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createGrpcTransport, createGrpcWebTransport, Http2SessionManager } from '@connectrpc/connect-node';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { MINUTE_MS, SECOND_MS, uuidv7 } from '@mad/process';
import { EchoService } from '@mad/proto/echo';
import { Health } from '@mad/proto/health';
import { grpcTransport, reasonOf, errorMetadataOf } from '@mad/rpc';
import { base64url, exportJWK, generateKeyPair, importJWK, SignJWT, UnsecuredJWT, type JWTPayload } from 'jose';
import {
  createServiceTokenSigner,
  generateSigningKey,
  serviceTokenInterceptor,
  signAccessToken,
} from '../src/index.ts';
import { bearer, orgId, platformClaims, startGuarded, userClaims, userId, userToken, type Guarded } from './harness.ts';

let guarded: Guarded;
beforeAll(async () => {
  guarded = await startGuarded();
});
afterAll(() => guarded.close());

/** The code and reason a call is refused with. */
async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    if (error instanceof ConnectError) return `${Code[error.code]} ${reasonOf(error)}`;
    throw error;
  }
  throw new Error('the call was let in');
}

const serviceToken = (service: 'catalog' | 'worker' | 'results'): Promise<string> =>
  createServiceTokenSigner({ service, privateJwk: guarded.serviceKeys[service].privateJwk })();

/** A token of our own making, signed by the right key unless told otherwise. */
async function forged(
  payload: JWTPayload,
  header: Record<string, unknown> = {},
  key = guarded.userKey,
): Promise<string> {
  const now = Math.floor(Date.now() / SECOND_MS);
  const claims = { sub: userId, org_id: orgId, roles: [], perms: ['echo.ask'], iss: 'mad', aud: 'mad' };
  return new SignJWT({ ...claims, iat: now, exp: now + 60, ...payload })
    .setProtectedHeader({ alg: 'ES256', kid: key.kid, ...header })
    .sign(await importJWK(key.privateJwk, 'ES256'));
}

describe('a user method', () => {
  test('lets in a user with the permission, as who the token says', async () => {
    const token = await userToken(guarded, { sessionId: 's1', onBehalf: 'admin-1' });
    const answer = await guarded.echo.askUser({ orgId }, bearer(token));
    expect(answer.orgId).toBe(orgId);
    expect(JSON.parse(answer.caller)).toEqual({
      kind: 'user',
      userId,
      orgId,
      roles: ['user'],
      permissions: ['jobs.read', 'echo.ask'],
      sessionId: 's1',
      onBehalf: 'admin-1',
    });
  });

  test('the organization is the token’s, also when the request names none', async () => {
    expect((await guarded.echo.askUser({}, bearer(await userToken(guarded)))).orgId).toBe(orgId);
  });

  test.each([
    ['no header', undefined, 'Unauthenticated TOKEN_MISSING'],
    ['no token', 'Bearer ', 'Unauthenticated TOKEN_MISSING'],
    ['another scheme', 'Basic YTpi', 'Unauthenticated TOKEN_MISSING'],
    ['no JWT', 'Bearer hello', 'Unauthenticated TOKEN_INVALID'],
    ['SQL', "Bearer ' OR 1=1 --", 'Unauthenticated TOKEN_INVALID'],
    ['only dots', 'Bearer ..', 'Unauthenticated TOKEN_INVALID'],
  ])('refuses %s', async (_name, authorization, expected) => {
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
    expect(await refusal(guarded.echo.askUser({ orgId }, { headers }))).toBe(expected);
  });

  const now = Math.floor(Date.now() / SECOND_MS);
  test.each<[string, JWTPayload, string]>([
    ['expired', { iat: now - 700, exp: now - 100 }, 'TOKEN_EXPIRED'],
    ['of another audience', { aud: 'other' }, 'WRONG_AUDIENCE'],
    ['of another issuer', { iss: 'other' }, 'TOKEN_INVALID'],
    ['without expiry', { exp: undefined }, 'TOKEN_INVALID'],
    ['without audience', { aud: undefined }, 'WRONG_AUDIENCE'],
    ['without subject', { sub: undefined }, 'TOKEN_INVALID'],
    ['of a day', { exp: now + 86_400 }, 'TOKEN_INVALID'],
    ['not yet valid', { nbf: now + 100 }, 'TOKEN_INVALID'],
    ['whose permissions are no list', { perms: 'echo.ask' }, 'TOKEN_INVALID'],
    ['whose organization is no text', { org_id: 7 }, 'TOKEN_INVALID'],
  ])('refuses a token %s', async (_name, payload, reason) => {
    expect(await refusal(guarded.echo.askUser({ orgId }, bearer(await forged(payload))))).toBe(
      `Unauthenticated ${reason}`,
    );
  });

  test('refuses a token that is not signed', async () => {
    const unsigned = new UnsecuredJWT({ org_id: orgId, roles: [], perms: ['echo.ask'] })
      .setSubject(userId)
      .setIssuer('mad')
      .setAudience('mad')
      .setIssuedAt()
      .setExpirationTime('5m')
      .encode();
    expect(await refusal(guarded.echo.askUser({ orgId }, bearer(unsigned)))).toBe('Unauthenticated TOKEN_INVALID');
    const [header, payload] = (await userToken(guarded)).split('.');
    const cut = `${header}.${payload}.`;
    expect(await refusal(guarded.echo.askUser({ orgId }, bearer(cut)))).toBe('Unauthenticated TOKEN_INVALID');
  });

  test('refuses alg none with a real key id, in any spelling', async () => {
    const [, payload, signature] = (await userToken(guarded)).split('.');
    for (const alg of ['none', 'None', 'NONE']) {
      const header = base64url.encode(JSON.stringify({ alg, kid: guarded.userKey.kid }));
      for (const tail of ['', signature]) {
        const token = `${header}.${payload}.${tail}`;
        expect(await refusal(guarded.echo.askUser({ orgId }, bearer(token)))).toBe('Unauthenticated TOKEN_INVALID');
      }
    }
  });

  test('refuses a token signed with the public key as a shared secret', async () => {
    const secret = new TextEncoder().encode(JSON.stringify(guarded.userKey.publicJwk));
    const token = await new SignJWT({ org_id: orgId, roles: [], perms: ['echo.ask'] })
      .setProtectedHeader({ alg: 'HS256', kid: guarded.userKey.kid })
      .setSubject(userId)
      .setIssuer('mad')
      .setAudience('mad')
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(secret);
    expect(await refusal(guarded.echo.askUser({ orgId }, bearer(token)))).toBe('Unauthenticated TOKEN_INVALID');
  });

  test('refuses a foreign key, under its own id and under ours', async () => {
    const foreign = await generateSigningKey();
    for (const kid of [foreign.kid, guarded.userKey.kid]) {
      const token = await signAccessToken({ kid, privateJwk: foreign.privateJwk }, userClaims);
      expect(await refusal(guarded.echo.askUser({ orgId }, bearer(token)))).toBe('Unauthenticated TOKEN_INVALID');
    }
  });

  test('refuses a key that the token itself brings', async () => {
    const pair = await generateKeyPair('ES256', { extractable: true });
    const jwk = await exportJWK(pair.publicKey);
    const token = await new SignJWT({ org_id: orgId, roles: [], perms: ['echo.ask'] })
      .setProtectedHeader({ alg: 'ES256', jwk, kid: 'mine' })
      .setSubject(userId)
      .setIssuer('mad')
      .setAudience('mad')
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(pair.privateKey);
    expect(await refusal(guarded.echo.askUser({ orgId }, bearer(token)))).toBe('Unauthenticated TOKEN_INVALID');
  });

  test('a token altered after it was accepted is refused', async () => {
    const token = await userToken(guarded);
    await guarded.echo.askUser({ orgId }, bearer(token));
    const [header, , signature] = token.split('.');
    const payload = base64url.encode(JSON.stringify({ sub: userId, org_id: uuidv7(), roles: [], perms: ['echo.ask'] }));
    const altered = `${header}.${payload}.${signature}`;
    expect(await refusal(guarded.echo.askUser({}, bearer(altered)))).toBe('Unauthenticated TOKEN_INVALID');
  });

  test('an accepted token is refused once it has expired', async () => {
    const token = await forged({ exp: Math.floor(Date.now() / SECOND_MS) + 1 });
    await guarded.echo.askUser({ orgId }, bearer(token));
    const start = Date.now();
    // Five seconds of clock difference are tolerated.
    let refused = '';
    while (refused === '' && Date.now() - start < 10 * SECOND_MS) {
      await new Promise((resolve) => setTimeout(resolve, 250));
      refused = await refusal(guarded.echo.askUser({ orgId }, bearer(token))).catch(() => '');
    }
    expect(refused).toBe('Unauthenticated TOKEN_EXPIRED');
  }, 15_000);

  test('another organization than the token’s does not exist', async () => {
    const other = uuidv7();
    const error = await guarded.echo
      .askUser({ orgId: other }, bearer(await userToken(guarded)))
      .catch((e: unknown) => e);
    expect(error).toMatchObject({ code: Code.NotFound });
    expect(reasonOf(error)).toBe('ORGANIZATION_NOT_FOUND');
    expect(errorMetadataOf(error)).toEqual({ org_id: other });
    // Also for one who lacks the permission: not a word about what is there.
    const weak = bearer(await userToken(guarded, { permissions: [] }));
    expect(await refusal(guarded.echo.askUser({ orgId: other }, weak))).toBe('NotFound ORGANIZATION_NOT_FOUND');
  });

  test('the permission must be there, whole', async () => {
    for (const permissions of [[], ['echo'], ['echo.*'], ['echo.ask2'], ['platform.echo.ask']]) {
      const token = await userToken(guarded, { permissions });
      expect(await refusal(guarded.echo.askUser({ orgId }, bearer(token)))).toBe('PermissionDenied PERMISSION_MISSING');
    }
  });

  test('refuses a platform token and a service token', async () => {
    const platform = await signAccessToken(guarded.userKey, platformClaims);
    expect(await refusal(guarded.echo.askUser({ orgId }, bearer(platform)))).toBe('PermissionDenied WRONG_AUDIENCE');
    const service = await serviceToken('catalog');
    expect(await refusal(guarded.echo.askUser({ orgId }, bearer(service)))).toBe('Unauthenticated TOKEN_INVALID');
  });

  test('every message of a stream is held to the token’s organization', async () => {
    async function* messages(...orgIds: string[]): AsyncGenerator<{ orgId: string }> {
      for (const one of orgIds) yield { orgId: one };
    }
    const options = bearer(await userToken(guarded, { permissions: [] }));
    const ask = async (...orgIds: string[]): Promise<number> => {
      let answers = 0;
      for await (const _answer of guarded.echo.askUserStream(messages(...orgIds), options)) answers++;
      return answers;
    };
    expect(await ask(orgId, '', orgId)).toBe(3);
    expect(await refusal(ask(orgId, uuidv7()))).toBe('NotFound ORGANIZATION_NOT_FOUND');
  });
});

describe('a platform method', () => {
  test('lets in an administrator with the permission', async () => {
    const token = await signAccessToken(guarded.userKey, platformClaims);
    const { caller } = await guarded.echo.askPlatform({}, bearer(token));
    expect(JSON.parse(caller)).toMatchObject({ kind: 'platform', userId });
  });

  test('refuses a user, whatever permissions, and an administrator without them', async () => {
    const user = await userToken(guarded, { permissions: ['platform.echo.ask'] });
    expect(await refusal(guarded.echo.askPlatform({}, bearer(user)))).toBe('PermissionDenied WRONG_AUDIENCE');
    const weak = await signAccessToken(guarded.userKey, { ...platformClaims, permissions: ['platform.other'] });
    expect(await refusal(guarded.echo.askPlatform({}, bearer(weak)))).toBe('PermissionDenied PERMISSION_MISSING');
  });
});

describe('a service method', () => {
  test('lets in the callers it names, with the end user for audit', async () => {
    const options = bearer(await serviceToken('worker'));
    expect(JSON.parse((await guarded.echo.askService({ orgId }, options)).caller)).toEqual({
      kind: 'service',
      service: 'worker',
    });
    const headers = { ...bearer(await serviceToken('catalog')).headers, 'x-mad-user': userId };
    expect(JSON.parse((await guarded.echo.askService({ orgId }, { headers })).caller)).toEqual({
      kind: 'service',
      service: 'catalog',
      userId,
    });
  });

  test('an end user that is no id is not passed on', async () => {
    const headers = { ...bearer(await serviceToken('catalog')).headers, 'x-mad-user': "x'; DROP TABLE users" };
    expect(JSON.parse((await guarded.echo.askService({}, { headers })).caller)).toEqual({
      kind: 'service',
      service: 'catalog',
    });
  });

  test('refuses another service, a user, an administrator and nobody', async () => {
    const results = bearer(await serviceToken('results'));
    expect(await refusal(guarded.echo.askService({}, results))).toBe('PermissionDenied CALLER_NOT_ALLOWED');
    for (const token of [await userToken(guarded), await signAccessToken(guarded.userKey, platformClaims)]) {
      expect(await refusal(guarded.echo.askService({}, bearer(token)))).toBe('Unauthenticated TOKEN_INVALID');
    }
    expect(await refusal(guarded.echo.askService({}))).toBe('Unauthenticated TOKEN_MISSING');
  });

  const catalog = (payload: JWTPayload, key = guarded.serviceKeys.catalog): Promise<string> =>
    forged({ iss: 'catalog', aud: 'mad-services', sub: undefined, ...payload }, {}, key);

  test('refuses one service in the name of another', async () => {
    const token = await catalog({}, guarded.serviceKeys.results);
    expect(await refusal(guarded.echo.askService({}, bearer(token)))).toBe('Unauthenticated TOKEN_INVALID');
    const user = await catalog({}, guarded.userKey);
    expect(await refusal(guarded.echo.askService({}, bearer(user)))).toBe('Unauthenticated TOKEN_INVALID');
  });

  test('refuses expired, foreign-audience, unknown and too long-lived ones', async () => {
    const now = Math.floor(Date.now() / SECOND_MS);
    const cases: [JWTPayload, string][] = [
      [{ iat: now - 200, exp: now - 100 }, 'TOKEN_EXPIRED'],
      [{ aud: 'mad' }, 'WRONG_AUDIENCE'],
      [{ iss: 'nobody' }, 'TOKEN_INVALID'],
      [{ iss: '__proto__' }, 'TOKEN_INVALID'],
      [{ iss: undefined }, 'TOKEN_INVALID'],
      [{ iat: now - 400, exp: now + 400 }, 'TOKEN_EXPIRED'],
    ];
    for (const [payload, reason] of cases) {
      const token = await catalog(payload);
      expect([payload, await refusal(guarded.echo.askService({}, bearer(token)))]).toEqual([
        payload,
        `Unauthenticated ${reason}`,
      ]);
    }
  });

  test('a client with the interceptor is let in, and keeps the trace', async () => {
    const { privateJwk } = guarded.serviceKeys.catalog;
    const sign = createServiceTokenSigner({ service: 'catalog', privateJwk });
    expect(await sign()).toBe(await sign());
    const transport = grpcTransport(`127.0.0.1:${guarded.port}`, { interceptors: [serviceTokenInterceptor(sign)] });
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
    const answer = await createClient(EchoService, transport).askService({ orgId }, { headers: { traceparent } });
    expect(JSON.parse(answer.caller)).toMatchObject({ service: 'catalog' });
    expect(answer.traceId).toBe('4bf92f3577b34da6a3ce929d0e0e4736');
    transport.close();
  });
});

describe('default deny', () => {
  test('nobody may call a method without a complete access rule', async () => {
    const tokens = [await userToken(guarded), await signAccessToken(guarded.userKey, platformClaims)];
    for (const token of [...tokens, await serviceToken('catalog')]) {
      const { askAnyone, askAnyUser, askAnyService } = guarded.unguarded;
      for (const ask of [askAnyone, askAnyUser, askAnyService]) {
        expect(await refusal(ask({}, bearer(token)))).toBe('PermissionDenied CALLER_NOT_ALLOWED');
      }
    }
    expect(await refusal(guarded.unguarded.askAnyone({}))).toBe('PermissionDenied CALLER_NOT_ALLOWED');
  });

  test('a public method, health and reflection need no token', async () => {
    const request = { id: uuidv7(), slug: 'a', value: 1 };
    expect((await guarded.echo.unary(request)).id).toBe(request.id);
    const transport = grpcTransport(`127.0.0.1:${guarded.port}`);
    expect((await createClient(Health, transport).check({})).status).toBe(1);
    transport.close();
  });

  test('holds on every transport', async () => {
    const token = await userToken(guarded);
    const baseUrl = `http://127.0.0.1:${guarded.port}`;
    const sessionManager = new Http2SessionManager(baseUrl);
    const transports = [
      createGrpcTransport({ baseUrl, sessionManager }),
      createGrpcWebTransport({ baseUrl: `http://127.0.0.1:${guarded.connectPort}`, httpVersion: '1.1' }),
    ];
    for (const transport of transports) {
      const client = createClient(EchoService, transport);
      expect((await client.askUser({ orgId }, bearer(token))).orgId).toBe(orgId);
      expect(await refusal(client.askUser({ orgId }))).toBe('Unauthenticated TOKEN_MISSING');
      expect(await refusal(client.askUser({ orgId: uuidv7() }, bearer(token)))).toBe('NotFound ORGANIZATION_NOT_FOUND');
    }
    sessionManager.abort();
  });
});

test('an access token lives ten minutes at most', async () => {
  await expect(signAccessToken(guarded.userKey, userClaims, 11 * MINUTE_MS)).rejects.toThrow(RangeError);
});
