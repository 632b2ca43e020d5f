import { Code, ConnectError } from '@connectrpc/connect';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import { SessionService, type TokenPair } from '@mad/proto/identity';
import { SECOND_MS } from '@mad/process';
import { openApi, type Api } from './api.ts';
import { CommandFailure, EXIT } from './failure.ts';
import { readLocalAdministrator } from './local-system.ts';
import { sessionStore, type SessionStore, type StoredSession } from './session-store.ts';
import type { Settings } from './settings.ts';

/** Whom a command acts as: an organization's member with its id, or the platform's administrator. */
export interface Signed {
  api: Api;
  /** Empty for the platform. */
  orgId: string;
  /** A credential that is good now, for calls that do not go through the api. */
  bearer(): Promise<string>;
}

/** What a person signs in with. */
export interface Login {
  email: string;
  password: string;
  /** Slug; empty for the person's only organization, or the platform. */
  organization: string;
}

const MARGIN_MS = 30 * SECOND_MS;
const DEVICE = 'mad command line';

/** Signs in and keeps the session. */
export async function signIn(settings: Settings, login: Login): Promise<StoredSession> {
  const api = openApi(settings.url, () => Promise.resolve(undefined));
  const answer = await api.client(SessionService).login({ ...login, device: DEVICE });
  const session = withTokens(
    { url: settings.url, email: login.email, organization: login.organization, orgId: answer.orgId },
    answer.tokens!,
  );
  if (answer.orgId && !login.organization) {
    const signed = openApi(settings.url, () => Promise.resolve(session.accessToken));
    session.organization = (await signed.client(SessionService).whoAmI({})).organization;
  }
  await sessionStore(settings.home).save(session);
  return session;
}

/** The caller's organization: by API token, or by the session signed in to. */
export async function asMember(settings: Settings): Promise<Signed> {
  if (settings.token) {
    const token = settings.token;
    const api = openApi(settings.url, () => Promise.resolve(token));
    return { api, orgId: (await api.client(SessionService).whoAmI({})).orgId, bearer: () => Promise.resolve(token) };
  }
  const store = sessionStore(settings.home);
  const session = await store.find(settings.url, settings.organization || undefined);
  if (!session) {
    const where = settings.organization ? ` to ${settings.organization}` : '';
    throw new CommandFailure(`not signed in${where}; run: mad login --org <slug> --email <address>`, EXIT.denied);
  }
  const bearer = bearerOf(store, session);
  return { api: openApi(settings.url, bearer), orgId: session.orgId, bearer };
}

/** The platform's administrator: a session, or on the local system the one made at its first start. */
export async function asPlatform(settings: Settings): Promise<Signed> {
  if (settings.token) {
    const token = settings.token;
    const bearer = () => Promise.resolve(token);
    return { api: openApi(settings.url, bearer), orgId: '', bearer };
  }
  const store = sessionStore(settings.home);
  let session = await store.find(settings.url, '');
  if (!session) {
    const administrator = settings.remote ? undefined : await readLocalAdministrator(settings.home);
    if (!administrator) {
      throw new CommandFailure('not signed in as a platform administrator; run: mad login --platform', EXIT.denied);
    }
    session = await signIn(settings, { ...administrator, organization: '' });
  }
  const bearer = bearerOf(store, session);
  return { api: openApi(settings.url, bearer), orgId: '', bearer };
}

/** The session's access token, renewed when it is about to end. */
function bearerOf(store: SessionStore, first: StoredSession): () => Promise<string> {
  let session = first;
  let renewal: Promise<StoredSession> | undefined;
  return async () => {
    if (session.accessExpiresAt - MARGIN_MS > Date.now()) return session.accessToken;
    renewal ??= renew(store, session).finally(() => (renewal = undefined));
    session = await renewal;
    return session.accessToken;
  };
}

async function renew(store: SessionStore, session: StoredSession): Promise<StoredSession> {
  // Another command may have renewed meanwhile: a refresh token works once.
  const stored = (await store.find(session.url, session.organization)) ?? session;
  if (stored.accessExpiresAt - MARGIN_MS > Date.now()) return stored;
  const api = openApi(session.url, () => Promise.resolve(undefined));
  try {
    const { tokens } = await api.client(SessionService).refreshSession({ refreshToken: stored.refreshToken });
    const renewed = withTokens(stored, tokens!);
    await store.save(renewed);
    return renewed;
  } catch (error) {
    if (ConnectError.from(error).code !== Code.Unauthenticated) throw error;
    await store.remove(stored);
    throw new CommandFailure('the session has ended; run: mad login', EXIT.denied);
  }
}

function withTokens(
  session: Pick<StoredSession, 'url' | 'email' | 'organization' | 'orgId'>,
  tokens: TokenPair,
): StoredSession {
  return {
    ...session,
    accessToken: tokens.accessToken,
    accessExpiresAt: timestampMs(tokens.accessExpireTime!),
    refreshToken: tokens.refreshToken,
  };
}
