import { createHash } from 'node:crypto';
import { createClient } from '@connectrpc/connect';
import type { Transport } from '@connectrpc/connect';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { SessionService } from '@mad/proto/identity';
import { MINUTE_MS } from '@mad/process';
import { LRUCache } from 'lru-cache';

const API_TOKEN = /^Bearer (mad_\S+)$/i;
/** An exchanged token is not used in the last minute of its life, so that it survives the inner calls. */
const MARGIN_MS = MINUTE_MS;

/** Gives the `authorization` that services understand; `beforeExchange` is awaited when identity must be asked. */
export type Credentials = (
  authorization: string | undefined,
  beforeExchange: () => Promise<void>,
) => Promise<string | undefined>;

/**
 * Turns what a client sends as `authorization` into what services understand. Access tokens pass as they are: every
 * service verifies them itself. API tokens are exchanged at identity for a short access token, kept while it lives.
 */
export function credentials(identity: Transport): Credentials {
  const sessions = createClient(SessionService, identity);
  const exchanged = new LRUCache<string, string>({ max: 10_000 });
  return async (authorization, beforeExchange) => {
    const secret = authorization && API_TOKEN.exec(authorization)?.[1];
    if (!secret) return authorization;
    const key = createHash('sha256').update(secret).digest('base64');
    const known = exchanged.get(key);
    if (known) return known;
    await beforeExchange();
    const { tokens } = await sessions.exchangeToken({ token: secret });
    const bearer = `Bearer ${tokens!.accessToken}`;
    const ttl = timestampMs(tokens!.accessExpireTime!) - Date.now() - MARGIN_MS;
    if (ttl > 0) exchanged.set(key, bearer, { ttl });
    return bearer;
  };
}
