import { expect } from '@jest/globals';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { generateSigningKey } from '@mad/auth';
import { createLogger, sleep } from '@mad/process';
import { JobService, JobState, MoleculeService } from '@mad/proto/catalog';
import { OrganizationService, OrganizationStatus, SessionService } from '@mad/proto/identity';
import { TenantService } from '@mad/proto/provisioner';
import { JobRunService, PoseService, type DownloadPosesRequest, type WatchJobRequest } from '@mad/proto/results';
import { bind, invalid, notFound, rpcError, serveRpc, type RpcServer } from '@mad/rpc';
import { testJwks } from '@mad/testing';
import type { GatewayConfig } from '../src/config.ts';
import { startGateway } from '../src/start.ts';

export const ORG = '0198c000-0000-7000-8000-000000000001';
export const JOB = '0198c000-0000-7000-8000-000000000002';
const logger = createLogger('test', { level: 'silent' });

/** A job whose answer takes `seen.slowMs`. */
export const SLOW = '0198c000-0000-7000-8000-000000000003';
/** Numbers after which `watchJob` behaves in a way of its own. */
export const AFTER = { error: 7n, waits: 9n, countersOnly: 20n, silent: 30n, flood: 1000n } as const;

/** What the neighbours saw, and how they shall answer. */
export const seen = {
  authorization: '',
  traceparent: '',
  headers: {} as Record<string, string>,
  exchanges: 0,
  aborted: 0,
  flooded: 0,
  slowMs: 500,
};
export const fleet = {
  metadataLatencyMs: 1.5,
  servers: [{ name: 'local', healthy: true, latencyMs: 2 }],
  tenantsByState: { READY: 2n },
};

async function* watchJob({ jobId, afterSeq }: WatchJobRequest, signal: AbortSignal) {
  if (jobId !== JOB) throw notFound('job', jobId);
  const event = (seqNo: bigint, detail = '') => ({
    events: [{ seqNo, event: 'job.progress', detail }],
    state: JobState.RUNNING,
  });
  switch (afterSeq) {
    case AFTER.error:
      yield event(8n);
      throw new ConnectError('tenant is gone', Code.Unavailable);
    case AFTER.waits:
      yield event(10n);
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      seen.aborted += 1;
      return;
    case AFTER.silent:
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      return;
    case AFTER.countersOnly:
      yield { events: [], state: JobState.RUNNING, counters: { requested: 5n } };
      return;
    case AFTER.flood:
      for (let n = 1001n; !signal.aborted; n += 1n) {
        seen.flooded += 1;
        yield event(n, 'x'.repeat(64 * 1024));
      }
      return;
    default:
      for (let n = afterSeq + 1n; n <= 3n; n += 1n) yield event(n);
  }
}

/** A file of three pieces; with a filter it breaks after the second. */
async function* downloadPoses({ jobId, filter }: DownloadPosesRequest) {
  if (jobId !== JOB) throw notFound('job', jobId);
  yield { content: Buffer.from('one\n') };
  yield { content: Buffer.from('two\n') };
  if (filter !== '') throw new ConnectError('tenant is gone', Code.Unavailable);
  yield { content: new Uint8Array(0) };
  yield { content: Buffer.from('three\n') };
}

/** Small real services over gRPC, all on one port. */
export function startNeighbours(): Promise<RpcServer> {
  return serveRpc({
    service: 'neighbours',
    host: '127.0.0.1',
    port: 0,
    interceptors: [],
    logger,
    services: [
      bind(OrganizationService, {
        getOrganization(request, ctx) {
          seen.authorization = ctx.requestHeader.get('authorization') ?? '';
          seen.traceparent = ctx.requestHeader.get('traceparent') ?? '';
          seen.headers = Object.fromEntries(ctx.requestHeader.entries());
          return { organization: { orgId: request.orgId, slug: 'acme', status: OrganizationStatus.ACTIVE } };
        },
        listOrganizations: (request) => ({ nextPageToken: `${request.pageSize}|${request.slug}` }),
        createOrganization: () => {
          throw rpcError(Code.AlreadyExists, 'ALREADY_EXISTS', 'slug is taken', { field: 'slug' });
        },
      }),
      bind(SessionService, {
        login: () => {
          throw rpcError(Code.Unauthenticated, 'CREDENTIALS_WRONG', 'wrong e-mail or password');
        },
        getJsonWebKeySet: async () => ({ keys: (await testJwks()).keys as never }),
        exchangeToken(request) {
          seen.exchanges += 1;
          if (request.token === 'mad_wrong') throw new ConnectError('the token is not valid', Code.Unauthenticated);
          return {
            tokens: { accessToken: `for-${request.token}`, accessExpireTime: timestampFromMs(Date.now() + 600_000) },
          };
        },
      }),
      bind(PoseService, { downloadPoses }),
      bind(JobService, {
        async getJob(request, ctx) {
          if (request.jobId === SLOW) await sleep(seen.slowMs, ctx.signal);
          if (request.jobId !== JOB && request.jobId !== SLOW) throw notFound('job', request.jobId);
          return {
            job: { jobId: request.jobId, orgId: request.orgId, state: JobState.RUNNING, counters: { requested: 5n } },
          };
        },
        createJob: () => {
          throw rpcError(
            Code.ResourceExhausted,
            'QUOTA_EXCEEDED',
            'too many queued tasks',
            {},
            { retryAfterMs: 3_000 },
          );
        },
        cancelJob: () => {
          throw new TypeError('secret detail');
        },
      }),
      bind(MoleculeService, {
        registerMolecules: (request) => ({
          registered: request.rows.map((row, i) => ({ line: i + 1, canonicalSmiles: row.smiles })),
        }),
        updateMolecule: () => {
          throw invalid('name', 'must not be empty');
        },
      }),
      bind(JobRunService, {
        watchJob: (request, ctx) => watchJob(request, ctx.signal),
      }),
      bind(TenantService, { getFleetHealth: () => fleet }),
    ],
  });
}

/** A gateway in front of `port`, on any port, with small limits. */
export async function gatewayConfig(port: number, settings: Partial<GatewayConfig> = {}): Promise<GatewayConfig> {
  const address = `127.0.0.1:${port}`;
  return {
    host: '127.0.0.1',
    port: 0,
    addresses: { identity: address, catalog: address, results: address, provisioner: address },
    servicePrivateJwk: (await generateSigningKey()).privateJwk,
    bodyLimitBytes: 64 * 1024,
    headerLimitBytes: 16 * 1024,
    timeoutMs: 5_000,
    heartbeatMs: 200,
    rates: { token: 0, organization: 0, address: 0 },
    redisUrl: undefined,
    corsOrigins: [],
    trustProxy: [],
    drainMs: 0,
    finishMs: 2_000,
    ...settings,
  };
}

/** A gateway with neighbours, serving. */
export interface Running {
  url: string;
  port: number;
  close(): Promise<void>;
}

/** Starts neighbours and a gateway in front of them. */
export async function startEdge(settings: Partial<GatewayConfig> = {}): Promise<Running> {
  const neighbours = await startNeighbours();
  const gateway = await startGateway(await gatewayConfig(neighbours.port, settings), { logger });
  return {
    url: `http://127.0.0.1:${gateway.port}`,
    port: gateway.port,
    async close() {
      await gateway.close();
      await neighbours.close();
    },
  };
}

/** An error answer, which must be problem JSON. */
export async function problemIn(response: Response): Promise<Record<string, unknown>> {
  expect(response.headers.get('content-type')).toMatch(/^application\/problem\+json/);
  return (await response.json()) as Record<string, unknown>;
}

/** The streams' path. */
export const WATCH = `/v1/organizations/${ORG}/jobs/${JOB}:watch`;
