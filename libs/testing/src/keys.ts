import {
  createAccessTokenVerifier,
  createServiceTokenVerifier,
  generateSigningKey,
  type AccessTokenVerifier,
  type KeySet,
  type ServiceTokenVerifier,
  type SigningKey,
} from '@mad/auth';

/** Keys live as long as the test file: a token of one file means nothing in another. */
let accessKey: Promise<SigningKey> | undefined;
const serviceKeys = new Map<string, Promise<SigningKey>>();

/** The key that signs this file's access tokens. */
export function testAccessKey(): Promise<SigningKey> {
  return (accessKey ??= generateSigningKey());
}

/** The key that signs a service's tokens in this file. */
export function testServiceKey(service: string): Promise<SigningKey> {
  let key = serviceKeys.get(service);
  if (key === undefined) serviceKeys.set(service, (key = generateSigningKey()));
  return key;
}

/** Keys of several services as their configuration wants them: each its own private key, all the public ones. */
export async function testServiceKeys<S extends string>(
  services: readonly S[],
): Promise<{ private: Record<S, SigningKey['privateJwk']>; public: Record<S, SigningKey['publicJwk']> }> {
  const pairs = await Promise.all(services.map(async (service) => [service, await testServiceKey(service)] as const));
  return {
    private: Object.fromEntries(pairs.map(([service, key]) => [service, key.privateJwk])) as Record<
      S,
      SigningKey['privateJwk']
    >,
    public: Object.fromEntries(pairs.map(([service, key]) => [service, key.publicJwk])) as Record<
      S,
      SigningKey['publicJwk']
    >,
  };
}

/** What identity would publish: the public half of this file's access key. */
export async function testJwks(): Promise<KeySet> {
  return { keys: [(await testAccessKey()).publicJwk] };
}

/** Accepts what `userToken` and `platformToken` make. */
export function testVerifier(): AccessTokenVerifier {
  return createAccessTokenVerifier({ jwks: testJwks });
}

/** Accepts what `serviceToken` makes for the given services. */
export async function testServiceVerifier(services: readonly string[]): Promise<ServiceTokenVerifier> {
  return createServiceTokenVerifier({ keys: (await testServiceKeys(services)).public });
}
