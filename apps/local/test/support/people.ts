import { createClient, type Client, type Interceptor } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import type { DescService } from '@bufbuild/protobuf';
import { uuidv7 } from '@mad/process';
import { MemberService, OrganizationService, SessionService, type Organization } from '@mad/proto/identity';
import { TenantService, TenantState } from '@mad/proto/provisioner';
import { eventually } from './fleet.ts';

/** Somebody signed in through the gateway. */
export interface Person {
  client: <S extends DescService>(service: S) => Client<S>;
  /** Empty for the platform's administrator. */
  orgId: string;
  accessToken: string;
}

/** A client of the gateway that shows a token, or none. */
export function gatewayClient<S extends DescService>(url: string, service: S, accessToken?: string): Client<S> {
  const authorize: Interceptor = (next) => (request) => {
    if (accessToken) request.header.set('authorization', `Bearer ${accessToken}`);
    return next(request);
  };
  return createClient(service, createConnectTransport({ baseUrl: url, httpVersion: '1.1', interceptors: [authorize] }));
}

/** Signs in. */
export async function signIn(
  url: string,
  login: { email: string; password: string; organization?: string },
): Promise<Person> {
  const { tokens, orgId } = await gatewayClient(url, SessionService).login({
    organization: '',
    device: 'test',
    ...login,
  });
  const { accessToken } = tokens!;
  return { orgId, accessToken, client: (service) => gatewayClient(url, service, accessToken) };
}

/** Creates an organization, waits for its database, and signs in as its new administrator. */
export async function newOrganization(
  url: string,
  platform: Person,
  slug: string,
  quotas: { maxConcurrentJobs?: number; maxQueuedTasks?: number; maxMolecules?: bigint } = {},
): Promise<{ organization: Organization; admin: Person; databaseName: string }> {
  const { organization } = await platform
    .client(OrganizationService)
    .createOrganization({ requestId: uuidv7(), slug, name: slug, quotas });
  const { orgId } = organization!;
  const tenant = await eventually(`${slug} is provisioned`, async () => {
    const { tenants } = await platform.client(TenantService).listTenants({ orgId });
    return tenants[0]?.state === TenantState.READY && tenants[0];
  });
  const email = `admin@${slug}.example`;
  const password = `password of ${slug}`;
  await platform
    .client(MemberService)
    .addFirstMember({ orgId, requestId: uuidv7(), email, displayName: slug, password, roles: ['admin'] });
  const admin = await signIn(url, { email, password, organization: slug });
  return { organization: organization!, admin, databaseName: tenant.databaseName };
}
