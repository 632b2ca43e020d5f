import {
  AuditService,
  MemberService,
  OrganizationService,
  PlatformService,
  RoleService,
  SessionService,
  TokenService,
} from '@mad/proto/identity';
import type { Case } from '../case.ts';

const EVENT = '0198c000-0000-7000-8000-0000000000e1';
const REQUEST = '0198c000-0000-7000-8000-0000000000a1';

/** Every service of identity. */
export const identityCases: Case[] = [
  {
    name: 'another service appends to the audit log',
    service: AuditService,
    method: 'AppendAuditEvents',
    as: 'catalog',
    request: ({ orgId }) => ({
      events: [
        {
          auditId: EVENT,
          orgId,
          actorKind: 'service',
          action: 'jobs.create',
          outcome: 'ok',
          time: '2026-11-25T08:30:00.125Z',
          metadata: { note: 'β', n: 1.5 },
        },
      ],
    }),
    responses: () => [{}],
    changes: true,
  },
  {
    name: 'the audit chain holds',
    service: AuditService,
    method: 'VerifyAuditChain',
    as: 'admin',
    request: ({ orgId }) => ({ orgId }),
    responses: () => [{ intact: true }],
    changes: true,
  },
  {
    name: 'a member, with a name beyond ASCII',
    service: MemberService,
    method: 'GetMember',
    as: 'user',
    request: ({ orgId, userId }) => ({ orgId, userId }),
    responses: ({ userId }) => [{ member: { user: { userId, displayName: 'Zoë Müller' }, roles: ['user'] } }],
  },
  {
    name: "the caller's organization",
    service: OrganizationService,
    method: 'GetOrganization',
    as: 'user',
    request: ({ orgId }) => ({ orgId }),
    responses: ({ orgId }) => [{ organization: { orgId, slug: 'acme', status: 'ORGANIZATION_STATUS_ACTIVE' } }],
  },
  {
    name: 'all organizations, for the platform',
    service: OrganizationService,
    method: 'ListOrganizations',
    as: 'platform',
    request: () => ({ pageSize: 10, slug: 'acme' }),
    responses: ({ orgId }) => [{ organizations: [{ orgId }] }],
  },
  {
    name: 'an organization, for another service',
    service: OrganizationService,
    method: 'DescribeOrganization',
    as: 'gateway',
    request: ({ orgId }) => ({ orgId }),
    responses: ({ orgId }) => [{ organization: { orgId, slug: 'acme' } }],
  },
  {
    name: 'the built-in roles are there',
    service: PlatformService,
    method: 'SeedIdentity',
    as: 'platform',
    responses: () => [{}],
  },
  {
    name: 'a role, made once however often it is asked for',
    service: RoleService,
    method: 'CreateRole',
    as: 'admin',
    request: ({ orgId }) => ({ orgId, requestId: REQUEST, name: 'reader', permissions: ['jobs.read'] }),
    responses: () => [{ role: { name: 'reader', permissions: ['jobs.read'] } }],
  },
  {
    name: 'the keys of access tokens, for everybody',
    service: SessionService,
    method: 'GetJsonWebKeySet',
    as: 'nobody',
    responses: () => [{ keys: [{ kty: 'EC', crv: 'P-256', alg: 'ES256' }] }],
  },
  {
    name: 'signing in',
    service: SessionService,
    method: 'Login',
    as: 'nobody',
    request: () => ({ email: 'user@acme.example', password: 'a password of twelve', organization: 'acme' }),
    responses: ({ orgId, userId }) => [{ orgId, userId }],
    changes: true,
  },
  {
    name: 'who the caller is',
    service: SessionService,
    method: 'WhoAmI',
    as: 'user',
    responses: ({ orgId, userId }) => [{ orgId, userId, organization: 'acme', email: 'user@acme.example' }],
  },
  {
    name: "the caller's API tokens: none",
    service: TokenService,
    method: 'ListTokens',
    as: 'user',
    request: ({ orgId }) => ({ orgId }),
    responses: () => [{}],
  },
];
