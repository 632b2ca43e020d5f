import { create } from '@bufbuild/protobuf';
import { accessInterceptor } from '@mad/auth';
import { createLogger, uuidv7 } from '@mad/process';
import {
  AuditService,
  OrganizationSchema,
  OrganizationService,
  OrganizationStatus,
  SessionService,
  type AuditEvent,
  type Organization,
} from '@mad/proto/identity';
import { bind, invalid, rpcError, serveRpc, type RpcServer } from '@mad/rpc';
import { testJwks, testObjectKeys, testServiceVerifier, testVerifier } from '@mad/testing';
import { Code } from '@connectrpc/connect';

export const silent = createLogger('test', { level: 'silent' });

/** A small identity: organizations, keys and an audit log in memory, behind a real server. */
export interface TestIdentity {
  address: string;
  organizations: Map<string, Organization>;
  audited: AuditEvent[];
  /** How often an organization was asked for. */
  described: number;
  close(): Promise<void>;
}

/** An active organization with the usual quotas. */
export function organization(change: Partial<Organization> = {}): Organization {
  const made = create(OrganizationSchema, {
    orgId: uuidv7(),
    name: 'Acme',
    slug: 'acme',
    status: OrganizationStatus.ACTIVE,
    region: 'local',
    quotas: {
      maxConcurrentJobs: 10,
      maxQueuedTasks: 10_000,
      maxMolecules: 1_000_000n,
      maxStorageBytes: 100_000_000n,
      maxRunningTasks: 64,
    },
  });
  return Object.assign(made, change);
}

export async function startIdentity(organizations: readonly Organization[]): Promise<TestIdentity> {
  const known = new Map(organizations.map((one) => [one.orgId, one]));
  const verifyService = await testServiceVerifier(['catalog']);
  const identity: Omit<TestIdentity, 'address' | 'close'> = { organizations: known, audited: [], described: 0 };
  const server: RpcServer = await serveRpc({
    service: 'identity',
    host: '127.0.0.1',
    port: 0,
    services: [
      // As the provisioner would.
      testObjectKeys(),
      bind(OrganizationService, {
        describeOrganization({ orgId }) {
          identity.described += 1;
          const found = known.get(orgId);
          if (found) return { organization: found };
          throw rpcError(Code.NotFound, 'ORGANIZATION_NOT_FOUND', 'not found', { org_id: orgId });
        },
        getOrganizationUse({ orgId }) {
          const found = known.get(orgId);
          if (found) return { use: { organization: found, members: 3n, tokens: 1n } };
          throw rpcError(Code.NotFound, 'ORGANIZATION_NOT_FOUND', 'not found', { org_id: orgId });
        },
        listOrganizationUse({ pageSize, pageToken }) {
          if (pageToken !== '' && !/^[0-9]+$/.test(pageToken)) throw invalid('page_token', 'is not a page token');
          const from = Number(pageToken);
          const end = from + (pageSize || 50);
          const uses = [...known.values()]
            .slice(from, end)
            .map((one) => ({ organization: one, members: 3n, tokens: 1n }));
          return { uses, nextPageToken: end < known.size ? String(end) : '' };
        },
      }),
      bind(SessionService, {
        async getJsonWebKeySet() {
          const { keys } = await testJwks();
          return { keys: keys.map(({ kid, kty, crv, alg, use, x, y }) => ({ kid, kty, crv, alg, use, x, y })) };
        },
      }),
      bind(AuditService, {
        appendAuditEvents({ events }) {
          const before = identity.audited.length;
          const recorded = new Set(identity.audited.map(({ auditId }) => auditId));
          identity.audited.push(...events.filter(({ auditId }) => !recorded.has(auditId)));
          return { appended: identity.audited.length - before };
        },
      }),
    ],
    interceptors: [accessInterceptor({ verifyUser: testVerifier(), verifyService })],
    logger: silent,
    drainMs: 100,
  });
  return Object.assign(identity, { address: `127.0.0.1:${server.port}`, close: () => server.close() });
}
